"""A program that is quick to compile and has every kind of leaf; also as a script."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_par import random
from jaxrl_par.cli import Flat, main
from jaxrl_par.errors import at_least
from jaxrl_par.loops import Program, Progress, Run
from jaxrl_par.training import TrainingConfig, train
from jaxrl_par.types import Count, Mean


class Learner(NamedTuple):
    params: dict
    half: jax.Array
    flags: jax.Array
    empty: jax.Array


@dataclass(frozen=True)
class Part:
    rate: float = 0.1
    widths: tuple[int, ...] = (3, 4)

    def problems(self) -> list[str]:
        return [] if self.rate > 0 else [f"rate must be above 0, got {self.rate}"]


@dataclass(frozen=True)
class Args:
    """Options of the toy."""

    seed: int = 0
    num_updates: int = 20
    work: int = 0
    """Multiplications of matrices in each update, to make it slow."""
    nan_from: int = 1_000_000
    nan_to: int = 1_000_000
    """Updates in which the gradient is not finite."""
    part: Part = Part()
    training: Flat[TrainingConfig] = TrainingConfig(log_interval=5, tensorboard=False)

    def problems(self) -> list[str]:
        return at_least(self, num_updates=1)


def toy(work: int = 0, nan_from: int = 1_000_000, nan_to: int = 1_000_000) -> Program:
    """A random walk of 4 environment steps an update."""

    def init(key):
        keys = jax.random.split(key, 4)
        learner = Learner(
            params={"w": jax.random.normal(key, (256, 8)), "b": jnp.zeros(8)},
            half=jnp.ones(3, jnp.bfloat16),
            flags=jnp.array([True, False]),
            empty=jnp.zeros((0, 2)),
        )
        zero = jnp.int32(0)
        progress = Progress(Count.zero(), Count.zero(), zero, zero)
        return Run(learner, {"keys": keys}, keys[0], progress)

    def step(run):
        number = run.progress.updates.units
        key = jax.random.fold_in(run.key, number)
        bad = (number >= nan_from) & (number < nan_to)
        noise = jax.random.normal(key, (256, 8))
        matrix = jax.random.normal(key, (300, 300)) / 20
        matrix = jax.lax.fori_loop(0, work, lambda _, x: jnp.tanh(x @ x), matrix)
        params = run.learner.params
        moved = 0.9 * params["w"] + noise + 1e-3 * matrix.mean()
        params = params | {"w": jnp.where(bad, params["w"], moved)}
        learner = run.learner._replace(params=params, flags=~run.learner.flags)
        before = run.progress
        progress = Progress(
            updates=before.updates.add(1),
            env_steps=before.env_steps.add(4),
            skipped=before.skipped + bad,
            skipped_in_a_row=jnp.where(bad, before.skipped_in_a_row + 1, 0),
        )
        metrics = {
            "loss": jnp.where(bad, jnp.nan, number.astype(jnp.float32)),
            "episode_return": Mean(jnp.float32(2 * number), jnp.float32(2)),
            "skipped": bad.astype(jnp.float32),
        }
        keys = jax.vmap(jax.random.fold_in, (0, None))(run.local["keys"], number)
        return Run(learner, {"keys": keys}, run.key, progress), metrics

    return Program(init, step)


def run_toy(args: Args, **options):
    """Trains the toy."""
    return train(
        toy(args.work, args.nan_from, args.nan_to),
        args,
        args.training,
        key=random.key(args.seed),
        num_updates=args.num_updates,
        **options,
    )


if __name__ == "__main__":
    main(run_toy, Args)


def settings(tmp_path, **changes) -> TrainingConfig:
    base = TrainingConfig(
        runs_dir=str(tmp_path / "runs"),
        name="toy",
        log_interval=5,
        checkpoint_interval=10,
        tensorboard=False,
    )
    return replace(base, **changes)


def resumed(args: Args, **changes) -> Args:
    return replace(args, training=replace(args.training, resume=True, **changes))


class CrashError(Exception):
    """Ends a run as a crash would."""


def crash_at(updates: int):
    """An evaluation that does it."""

    def evaluate(run):
        if int(run.progress.updates) >= updates:
            raise CrashError
        return {}

    return evaluate
