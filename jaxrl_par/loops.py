"""What one training step does, as a program that a topology can place on hardware."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Int, PyTree

from jaxrl_par import random, rollout
from jaxrl_par.envs import Environment
from jaxrl_par.types import (
    Agent,
    Batch,
    Count,
    Info,
    Metrics,
    PRNGKey,
    State,
    Trajectory,
)


class Progress(NamedTuple):
    """How far a run is."""

    updates: Count
    """Steps of the program."""
    env_steps: Count
    """Rows that are no `last`, of all environments on all devices."""
    skipped: Int[Array, ""]
    """Gradients that were not finite and therefore not applied."""
    skipped_in_a_row: Int[Array, ""]
    """Latest steps of the program in each of which one or more were skipped."""


class Run(NamedTuple):
    """All that training carries from one step to the next, and so all that is saved."""

    learner: Any
    """The agent's state, the same on every device."""
    local: PyTree
    """What each device has for itself: environments, replay."""
    key: PRNGKey
    """Root of all randomness. It never changes: step n draws from its fold by n."""
    progress: Progress


class Program(NamedTuple):
    """Training as two pure functions, to be jitted, scanned, sharded or vmapped."""

    init: Callable[[PRNGKey], Run]
    step: Callable[[Run], tuple[Run, Metrics]]


def on_policy(
    agent: Agent,
    env: Environment,
    unroll_length: int,
    *,
    num_epochs: int = 1,
    num_minibatches: int = 1,
    axis_name: str | None = None,
) -> Program:
    """Acts for `unroll_length` steps in every environment, then learns from them.

    Args:
      num_epochs: passes over the data, each in a new order.
      num_minibatches: updates in each pass.
      axis_name: a mapped axis. Each instance along it steps an `env` of its own with
        randomness of its own; gradients and metrics are averaged over it.

    Raises:
      ValueError: a count is below 1.
    """
    _check_counts(unroll_length=unroll_length)
    learn_from = learner(
        agent,
        num_epochs=num_epochs,
        num_minibatches=num_minibatches,
        axis_name=axis_name,
    )

    def init(key: PRNGKey) -> Run:
        agent_key, env_key, root = jax.random.split(key, 3)
        workers = rollout.start(agent, env, _local(env_key, axis_name))
        return new_run(agent.init(agent_key, workers.step), workers, root)

    def step(run: Run) -> tuple[Run, Metrics]:
        act_key, _ = _step_keys(run, axis_name)
        workers, trajectory, episodes = rollout.unroll(
            agent, env, run.learner.params, run.local, act_key, unroll_length
        )
        run, metrics = learn_from(run._replace(local=workers), trajectory)
        return run, metrics | _episode_metrics(episodes, axis_name)

    return Program(init, step)


def learner(
    agent: Agent,
    *,
    num_epochs: int = 1,
    num_minibatches: int = 1,
    axis_name: str | None = None,
) -> Callable[[Run, Trajectory], tuple[Run, Metrics]]:
    """The half of `on_policy` that learns, for trajectories that were acted elsewhere.

    It leaves `Run.local` alone. Arguments and errors are those of `on_policy`.
    """
    _check_counts(num_epochs=num_epochs, num_minibatches=num_minibatches)

    def learn_from(run: Run, trajectory: Trajectory) -> tuple[Run, Metrics]:
        _, learn_key = _step_keys(run, axis_name)
        state, metrics = learn(
            agent, run.learner, trajectory, learn_key,
            num_epochs=num_epochs, num_minibatches=num_minibatches, axis_name=axis_name,
        )  # fmt: skip
        return _advance(run._replace(learner=state), trajectory, metrics, axis_name)

    return learn_from


def act_key(root: PRNGKey, unroll: Count, index: Int[Array, ""] | int) -> PRNGKey:
    """The key with which instance `index` along the mapped axis acts in an unroll.

    An actor that is no instance of a program, but a thread, draws with it what the
    instance would have drawn.
    """
    key, _ = jax.random.split(jax.random.fold_in(_fold_count(root, unroll), index))
    return key


def episodic(
    agent: Agent, env: Environment, max_steps: int, *, axis_name: str | None = None
) -> Program:
    """Acts for one whole episode in every environment, then learns once from them.

    The loop of Monte Carlo policy gradients, which need returns to the end.

    Raises:
      ValueError: `max_steps` is below 1.
    """
    _check_counts(max_steps=max_steps)

    def init(key: PRNGKey) -> Run:
        agent_key, env_key, root = jax.random.split(key, 3)
        _, step = env.reset(env_key)
        return new_run(agent.init(agent_key, step), (), root)

    learn_from = learner(agent, axis_name=axis_name)

    def step(run: Run) -> tuple[Run, Metrics]:
        act_key, _ = _step_keys(run, axis_name)
        trajectory, episodes = rollout.whole_episodes(
            agent, env, run.learner.params, act_key, max_steps
        )
        run, metrics = learn_from(run, trajectory)
        return run, metrics | _episode_metrics(episodes, axis_name)

    return Program(init, step)


def learn(
    agent: Agent,
    state: State,
    trajectory: Trajectory,
    key: PRNGKey,
    *,
    num_epochs: int = 1,
    num_minibatches: int = 1,
    axis_name: str | None = None,
) -> tuple[State, Metrics]:
    """All updates from one trajectory: prepared once, then by minibatches.

    Metrics are means over the updates, except `skipped`, their number not applied.

    Raises:
      ValueError: `num_minibatches` does not divide the rows (or sequences).
    """
    mean = partial(average, axis_name=axis_name)
    state, batch = agent.prepare(state, trajectory, mean)
    if num_epochs == num_minibatches == 1:
        state, info = update(agent, state, batch, key, axis_name)
        return state, info.metrics

    num_items, take = _items(batch)
    if num_items % num_minibatches:
        raise ValueError(
            f"num_minibatches = {num_minibatches} does not divide the {num_items} rows"
            " or sequences that one device learns from"
        )

    def minibatch(state, inputs):
        rows, key = inputs
        state, info = update(agent, state, take(rows), key, axis_name)
        return state, info.metrics

    def epoch(state, key):
        order_key, update_key = jax.random.split(key)
        order = random.permutation(order_key, num_items).reshape(num_minibatches, -1)
        keys = jax.random.split(update_key, num_minibatches)
        return jax.lax.scan(minibatch, state, (order, keys))

    keys = jax.random.split(key, num_epochs)
    state, metrics = jax.lax.scan(epoch, state, keys)
    skipped = jnp.sum(jnp.asarray(metrics.pop("skipped")))
    return state, jax.tree.map(jnp.mean, metrics) | {"skipped": skipped}


def update(
    agent: Agent, state: State, batch: Batch, key: PRNGKey, axis_name: str | None = None
) -> tuple[State, Info]:
    """One synchronous update: the gradient, its mean over `axis_name`, its use.

    The same under `jit`, `vmap(axis_name=...)`, `pmap` and `shard_map`. A gradient that
    is not finite is not applied: `skipped` is then 1. `grad_norm` is that of the whole
    gradient, before the optimizer's clipping.
    """
    grads, info = agent.grad(state, batch, key)
    if _summed_by_shard_map(grads, batch, axis_name):
        scale = 1 if agent.reduction == "sum" else jax.lax.axis_size(axis_name)
        grads = jax.tree.map(lambda x: x / scale, grads)
    else:
        grads = average(grads, axis_name=axis_name, reduction=agent.reduction)
    # Raveled, the norm is two kernels for all leaves, not two for each.
    norm = optax.tree.norm(ravel_pytree(grads)[0])
    finite = jnp.isfinite(norm)
    applied = agent.apply(state, grads)
    state = jax.tree.map(lambda new, old: _where(finite, new, old), applied, state)
    metrics = average(info.metrics, axis_name=axis_name)
    metrics |= {"grad_norm": norm, "skipped": 1.0 - finite}
    return state, info._replace(metrics=metrics)


def average(
    tree: PyTree,
    *,
    axis_name: str | None,
    reduction: Literal["mean", "sum"] = "mean",
) -> PyTree:
    """The mean or sum over a mapped axis; without one, the tree as it is."""
    if axis_name is None:
        return tree
    collective = jax.lax.psum if reduction == "sum" else jax.lax.pmean
    return collective(tree, axis_name)


def _summed_by_shard_map(grads: PyTree, batch: PyTree, axis_name: str | None) -> bool:
    """Whether JAX has summed the gradient over the devices by itself.

    It does so under `shard_map` with its default `check_vma=True`: data that differ
    between devices are then marked as varying, and the gradient with respect to
    replicated parameters is not. A mean after that sum would be too large by the number
    of devices, which Adam hides.
    """

    def varies(tree):
        leaves = [jax.typeof(x) for x in jax.tree.leaves(tree)]
        return any(axis_name in leaf.manual_axis_type.varying for leaf in leaves)

    return axis_name is not None and varies(batch) and not varies(grads)


def _items(batch: Batch) -> tuple[int, Callable[[Int[Array, " N"]], Batch]]:
    """How many items a batch has, and what takes some of them.

    Those of a trajectory, which an agent with the default `prepare` learns from, are
    its environments, [T, B, ...]; of any other batch, its rows [N, ...].
    """
    if not isinstance(batch, Trajectory):
        num_rows = jax.tree.leaves(batch)[0].shape[0]
        return num_rows, lambda rows: jax.tree.map(lambda x: _take(x, rows), batch)

    def take(lanes: Int[Array, " N"]) -> Trajectory:
        carry = jax.tree.map(lambda x: x[lanes], batch.carry)
        over_time = batch._replace(carry=())
        taken = jax.tree.map(lambda x: x[:, lanes], over_time)
        return taken._replace(carry=carry)

    return batch.reward.shape[1], take


def _take(x: Array, index: Int[Array, " N"]) -> Array:
    # Rows of one axis are copied three times faster on CPU than rows of several.
    return x.reshape(len(x), -1)[index].reshape(*index.shape, *x.shape[1:])


def _where(condition: Bool[Array, ""], x: Array, y: Array) -> Array:
    return jax.lax.select(jnp.broadcast_to(condition, jnp.shape(x)), x, y)


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")


def new_run(learner: Any, local: PyTree, key: PRNGKey) -> Run:
    """A run at its start. `key` is its root, from which every step's is folded."""
    zero = jnp.int32(0)
    return Run(learner, local, key, Progress(Count.zero(), Count.zero(), zero, zero))


def _step_keys(run: Run, axis_name: str | None) -> tuple[PRNGKey, PRNGKey]:
    """To act and to learn with, in the next step of this instance along the axis."""
    step_key = _fold_count(run.key, run.progress.updates)
    act_key, learn_key = jax.random.split(_local(step_key, axis_name))
    return act_key, learn_key


def _fold_count(key: PRNGKey, count: Count) -> PRNGKey:
    return jax.random.fold_in(jax.random.fold_in(key, count.millions), count.units)


def _advance(
    run: Run, trajectory: Trajectory, metrics: Metrics, axis_name: str | None
) -> tuple[Run, Metrics]:
    """Counts what was learned from."""
    env_steps = jnp.sum(~trajectory.steps.last[:-1], dtype=jnp.int32)
    env_steps = average(env_steps, axis_name=axis_name, reduction="sum")
    before = run.progress
    skipped = jnp.asarray(metrics["skipped"], jnp.int32)
    progress = Progress(
        updates=before.updates.add(1),
        env_steps=before.env_steps.add(env_steps),
        skipped=before.skipped + skipped,
        skipped_in_a_row=jnp.where(skipped > 0, before.skipped_in_a_row + 1, 0),
    )
    return run._replace(progress=progress), metrics


def _episode_metrics(episodes: rollout.Episodes, axis_name: str | None) -> Metrics:
    episodes = average(episodes, axis_name=axis_name, reduction="sum")
    return {"episode_return": episodes.return_, "episode_length": episodes.length}


def _local(key: PRNGKey, axis_name: str | None) -> PRNGKey:
    """A key of this instance's own along the axis."""
    if axis_name is None:
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(axis_name))
