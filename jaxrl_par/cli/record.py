"""`jaxrl-par record-demonstrations`: what an agent does, as a folder to learn from."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl_par import envs, random, training
from jaxrl_par.cli import experts
from jaxrl_par.cli.config import parse_words
from jaxrl_par.cli.entry import configure_jax
from jaxrl_par.envs import Environment
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.errors import RefusedError, at_least, not_a_seed
from jaxrl_par.training import demonstrations
from jaxrl_par.training.interrupts import exits
from jaxrl_par.training.recording import record
from jaxrl_par.types import Agent, Params


@dataclass(frozen=True)
class RecordArgs:
    """Acts, and writes what was done, for `--replay.demonstrations`.

    FOLDER is that of the run whose agent acts, in the environments it was trained
    in."""

    expert: str | None = None
    """In place of a run: somebody who knows this environment, such as IMaze-21x21."""
    out: Path = Path("demonstrations")
    """Folder to write to, new or empty."""
    num_steps: int = 2_000
    """Environment steps, of all environments together."""
    num_envs: int = 8
    greedy: bool = True
    """Take the best action, as evaluations do; otherwise sample, as training does."""
    checkpoint: str = "newest"
    """newest, best (by evaluation, where the run kept it), or the number of an
    update."""
    show_previous: bool = True
    """For an expert: show the previous action and reward with each observation, as
    r2d2 and r2d3 do. A run has what it was trained with."""
    seed: int = 0

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_steps=1, num_envs=1) + not_a_seed(seed=self.seed)
        if self.expert is not None:
            found += [f"expert: {x}" for x in experts.problems(self.expert)]
        return found


class _Actor(NamedTuple):
    """Who acts, and where."""

    agent: Agent
    params: Params
    env: Environment | HostEnvironment
    about: dict[str, Any]


def record_command(
    argv: Sequence[str], program: str = "jaxrl-par record-demonstrations"
) -> None:
    """Writes demonstrations as a command line asks for.

    Raises:
      SystemExit: the command line is wrong.
      TrainingError, RefusedError: there is no run or expert, or both; the run cannot
        be loaded, or the folder not be written.
      Interrupted: a signal came; there is no folder then.
    """
    folders, args = parse_words(RecordArgs, argv, program, "[FOLDER]")
    with exits(), ExitStack() as stack:
        configure_jax()
        if bool(folders) == (args.expert is not None):
            raise RefusedError("give the FOLDER of a run, or else an expert, not both")
        demonstrations.refuse_content(args.out)
        actor = _loaded(args, folders[0], stack) if folders else _expert(args)
        key = random.key(args.seed)
        given = (actor.agent, actor.params, actor.env, args.num_steps, key)
        recording = record(*given, greedy=args.greedy)
        about = actor.about | {"greedy": args.greedy, "seed": args.seed}
        about |= recording.about()
        specs = actor.env.specs
        demonstrations.write(args.out, recording.trajectory, specs, about)
        episodes, mean = about["episodes"], about["mean_return"]
        print(f"{args.out}: {recording.env_steps:,} steps of {actor.env.name}")
        if episodes:
            print(f"  {episodes} whole episodes, mean return {mean:.2f}")


def _expert(args: RecordArgs) -> _Actor:
    assert args.expert is not None
    env = envs.make(args.expert, args.num_envs)
    env = previous_action_and_reward(env) if args.show_previous else env
    about = {"agent": experts.EXPERT, "env_name": args.expert}
    return _Actor(experts.of(args.expert), (), env, about)


def _loaded(args: RecordArgs, folder: str, stack: ExitStack) -> _Actor:
    named = args.checkpoint
    checkpoint = int(named) if named.isdecimal() else named
    run = stack.enter_context(training.load(folder, checkpoint=checkpoint))
    if run.args.is_pure:
        env = run.args.make_env(args.num_envs)
    else:
        env = run.args.make_host_env(random.key(args.seed), args.num_envs)
        stack.callback(env.close)
    about = {"agent": folder, "update": run.update}
    about["env_name"] = run.args.env_name
    return _Actor(run.agent, run.params, env, about)
