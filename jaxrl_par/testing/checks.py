"""Checks of environments, networks and agents against the contracts of this package.

Each raises an AssertionError that says what is wrong and in which row, environment or
leaf. Passing means that the part works in every loop and topology, not that it learns:
for that there is `check_learns`, on the probe environments beside this file.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from jaxrl_par import loops, random, rollout
from jaxrl_par.axis import Axis
from jaxrl_par.envs import Environment, Episode
from jaxrl_par.networks import Network
from jaxrl_par.testing.actions import nothing_allowed, other_action, random_action
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.types import (
    Action,
    Agent,
    Box,
    Carry,
    Discrete,
    Grads,
    MultiDiscrete,
    PRNGKey,
    Spec,
    Specs,
    State,
    TimeStep,
    Trajectory,
    example,
)


class _Rows(NamedTuple):
    """A stream under random actions: T+1 steps, T of all else."""

    steps: TimeStep
    action: Action
    reward: Any
    discount: Any
    episode: Episode


def check_environment(
    env: Environment, num_steps: int = 200, *, rewards_changed: bool = False
) -> None:
    """Follows the stream of `env` under random actions.

    What does not happen within `num_steps` is not checked: choose it such that some
    episodes end, and in each way that they can. At least four environments make it
    unlikely that they are alike by chance.

    Args:
      rewards_changed: a wrapper changes them. Returns of episodes, which are those of
        the environment itself, then cannot be recomputed.

    Raises:
      AssertionError: the environment breaks its contract.
    """
    assert env.episode is not None, (
        f"{env.name} keeps no statistics of its episodes, which a rollout needs:"
        " wrap it in envs.wrappers.episode_statistics"
    )
    _check_step_types(env)
    stream = partial(_random_stream, env, num_steps)
    compiled = jax.jit(stream)
    key, other_key = jax.random.split(random.key(0))
    rows = jax.device_get(compiled(key, False))
    _check_observations(env, rows.steps)
    _check_stream(env, rows)
    _check_statistics(rows, rewards_changed)

    again = jax.device_get(compiled(key, False))
    _check_equal(again, rows, "the same key gave other numbers when called again")
    keys = jnp.stack([key, key, other_key])
    other_when_last = jnp.array([False, True, False])
    mapped = jax.device_get(jax.jit(jax.vmap(stream))(keys, other_when_last))
    same, ignored, other = (jax.tree.map(lambda x, i=i: x[i], mapped) for i in range(3))
    # Rounding differs between programs, and a game may amplify it: the first rows only.
    early, first = (jax.tree.map(lambda x: x[:8], x) for x in (same, rows))
    drawn = "vmap changes the numbers of a key; are any drawn while tracing?"
    _check_equal(early, first, drawn, tolerance=1e-4)
    after, expected = (x._replace(action=()) for x in (ignored, same))
    _check_equal(after, expected, "the action at a last step changed what follows")
    _check_environments_differ(same, other)


def check_network(
    network: Network, env: Environment, num_steps: int = 8, tolerance: float = 1e-5
) -> None:
    """Reads observations of `env` with random parameters, after some others.

    Args:
      tolerance: largest difference, absolute and relative, between `unroll` and
        `apply`; networks that compute in bfloat16 need about 1e-2.

    Raises:
      AssertionError: the network breaks its contract.
    """
    init_key, stream_key, other_key = jax.random.split(random.key(0), 3)
    rows = jax.jit(partial(_random_stream, env, num_steps))(stream_key, False)
    steps = _with_starts(rows.steps)
    step = jax.tree.map(lambda x: x[0], steps)
    empty = network.initial_carry(env.num_envs)
    _check_batched(empty, env.num_envs, "initial_carry")
    params = jax.jit(network.init)(init_key, step)
    _, after = jax.eval_shape(network.apply, params, empty, step)
    _check_types(after, empty, "the carry of apply", "initial_carry")

    apply, unroll = jax.jit(network.apply), jax.jit(network.unroll)
    # Not random numbers: parts of a memory may be computed from others.
    others = jax.jit(partial(_random_stream, env, num_steps))(other_key, False).steps
    old = unroll(params, empty, others)[1]
    outputs, after = unroll(params, old, steps)
    stepped, carry = [], old
    for t in range(num_steps + 1):
        row, carry = apply(params, carry, jax.tree.map(lambda x, t=t: x[t], steps))
        stepped.append(row)
    stepped = jax.tree.map(lambda *x: jnp.stack(x), *stepped)
    _check_finite(stepped, "outputs of apply")
    _check_equal(outputs, stepped, "unroll differs from apply", tolerance)

    # Memories are compared by what is read from them: they may hold what is not.
    further = step._replace(first=jnp.zeros_like(step.first))
    unrolled, stepped = (apply(params, x, further)[0] for x in (after, carry))
    differs = "the memory after unroll differs from that after apply"
    _check_equal(unrolled, stepped, differs, tolerance)

    def anew(carry: Carry):
        started, carry = apply(params, carry, further._replace(first=~further.first))
        return started, apply(params, carry, further)[0]

    kept = "apply does not clear the memory where the step is first"
    _check_equal(anew(old), anew(empty), kept)
    alone = jax.tree.map(lambda x: x[:1], (old, step))
    _check_equal(
        network.apply(params, *alone),
        jax.tree.map(lambda x: x[:1], apply(params, old, step)),
        "one environment's output depends on the others",
        tolerance,
    )


def check_agent(
    agent: Agent, env: Environment, unroll_length: int = 8, tolerance: float = 1e-5
) -> None:
    """Acts in `env`, and compares gradients of what was acted.

    Args:
      agent: learns from trajectories; its gradient does not depend on its key.
      tolerance: how much equal gradients may differ, as a share of the largest element.

    Raises:
      AssertionError: the agent breaks its contract.
      ValueError: the number of environments is odd.
    """
    if env.num_envs % 2:
        raise ValueError(f"num_envs must be even, to be halved, got {env.num_envs}")
    key, start_key, act_key = jax.random.split(random.key(0), 3)
    streams = jax.jit(partial(rollout.start, agent, env))(start_key)
    state = jax.jit(agent.init)(key, streams.step)
    _check_acting(agent, env, state, streams)
    act = jax.jit(partial(rollout.unroll, agent, env, length=unroll_length))
    _, trajectory, _ = act(agent.params(state), streams, act_key)
    trajectory = _with_ends(trajectory)

    gradient = jax.jit(partial(_gradient, agent, key=key, axis=Axis()))
    grads = gradient(state, trajectory)
    _check_finite(grads, "the gradient")
    applied = jax.eval_shape(partial(_applied, agent, key=key), state, trajectory)
    _check_types(applied, state, "the state after apply", "that before")

    _check_close(
        gradient(state, _with_other_ends(trajectory, env.action_spec)),
        grads,
        "reward and action at steps that are last change the gradient",
        tolerance,
    )
    halved = partial(_gradient, agent, key=key, axis=Axis("half"))
    # The batch as two, leaves [2, T, B/2, ...].
    halves = trajectory.along_lanes(lambda axis, x: jnp.stack(jnp.split(x, 2, axis)))
    mapped = jax.jit(jax.vmap(halved, in_axes=(None, 0), axis_name="half"))
    _check_close(
        jax.tree.map(lambda x: x[0], mapped(state, halves)),
        grads,
        f"the {agent.reduction} of the gradients of two halves is not that of the whole"
        " batch; is agent.reduction right, and each denominator constant?",
        tolerance,
    )


def check_learns(
    learner: Agent | loops.Learner,
    env: Environment,
    at_least: float,
    *,
    num_updates: int = 200,
    unroll_length: int = 8,
    seed: int = 0,
) -> State:
    """Trains with `topologies.compiled` and looks at the episodes of the final fifth.

    Args:
      at_least: the mean return that these have to reach.

    Returns:
      What was learned, so that values can be compared with the known ones.

    Raises:
      AssertionError: the mean return is lower, or no episode ended.
    """
    program = compiled(learner, env, unroll_length)

    train = jax.jit(lambda key: scanned(program, num_updates)(program.init(key)))
    run, metrics = train(random.key(seed))
    final = slice(-max(num_updates // 5, 1), None)
    returns = jax.tree.map(lambda x: float(x[final].sum()), metrics["episode_return"])
    assert returns.count, f"no episode of {env.name} ended in the final updates"
    reached = returns.total / returns.count
    assert reached >= at_least, (
        f"{env.name} returns {reached:.3f} after {num_updates} updates, less than"
        f" {at_least}"
    )
    return run.learner


def _random_stream(
    env: Environment,
    num_steps: int,
    key: PRNGKey,
    other_when_last: Bool[Array, ""] | bool,
) -> _Rows:
    """T steps of `env`. Actions are random but those of all environments, so that only
    its own randomness can make environments differ.

    Args:
      other_when_last: takes another action at steps that are last.
    """
    assert env.episode is not None
    statistics = env.episode
    reset_key, step_key = jax.random.split(key)

    def advance(carry, t):
        env_state, step = carry
        action = random_action(env, step.obs, jax.random.fold_in(random.key(1), t))
        other = other_action(env.action_spec, action)
        action = _where(step.last & other_when_last, other, action)
        env_key = jax.random.fold_in(step_key, t)
        env_state, after, reward, discount = env.step(env_state, action, env_key)
        row = (action, reward, discount, statistics(env_state))
        return (env_state, after), (step, row)

    start = env.reset(reset_key)
    (_, final), (steps, rows) = jax.lax.scan(advance, start, jnp.arange(num_steps))
    steps = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), steps, final)
    return _Rows(steps, *rows)


def _check_step_types(env: Environment) -> None:
    """A scan accepts what reset and step return."""
    key, action = random.key(0), example(env.action_spec, env.num_envs)
    state, step = jax.eval_shape(env.reset, key)
    after_state, after, reward, discount = jax.eval_shape(env.step, state, action, key)
    floats = {"reward": reward, "discount": discount}
    flags = {"first": step.first, "last": step.last}
    for name, leaf in _leaves({"env_state": state, "step": step} | floats):
        assert not leaf.weak_type, (
            f"{name} is weakly typed, made of a Python number: name its dtype,"
            " or it changes when it meets other arrays"
        )
    _check_types(after_state, state, "the state of step", "that of reset")
    _check_types(after, step, "the TimeStep of step", "that of reset")
    for name, leaf in (floats | flags).items():
        dtype = np.dtype(bool if name in flags else np.float32)
        assert (leaf.shape, leaf.dtype) == ((env.num_envs,), dtype), (
            f"{name} must be {dtype} [{env.num_envs}], is {leaf.dtype}"
            f" {list(leaf.shape)}"
        )


def _check_observations(env: Environment, steps: TimeStep) -> None:
    specs = dict(_leaves(env.observation_spec, is_leaf=lambda x: isinstance(x, Spec)))
    leaves = dict(_leaves(steps.obs))
    assert [*specs] == [*leaves], (
        f"observation_spec has the leaves {[*specs]}, observations have {[*leaves]}"
    )
    for path, leaf in leaves.items():
        name, spec = f"obs{path}", specs[path]
        shape = (env.num_envs, *spec.shape)
        assert (leaf.shape[1:], leaf.dtype) == (shape, spec.dtype), (
            f"{name} is {leaf.dtype} {list(leaf.shape[1:])}, its spec says"
            f" {spec.dtype} {list(shape)}"
        )
        low, high = _bounds(spec)
        _check_rows(np.isfinite(leaf), f"{name} is not finite")
        inside = (leaf >= np.asarray(low) - 1e-5) & (leaf <= np.asarray(high) + 1e-5)
        _check_rows(inside, f"{name} is outside [{low}, {high}] of its spec")
    _check_rows(
        ~nothing_allowed(env, steps),
        "the mask allows no action, and the step is not last",
    )


def _bounds(spec: Spec) -> tuple[Any, Any]:
    """(lowest, highest) that it allows."""
    if isinstance(spec, Discrete):
        return 0, spec.num_values - 1
    if isinstance(spec, MultiDiscrete):
        return 0, spec.nvec - 1
    return spec.low, spec.high


def _check_stream(env: Environment, rows: _Rows) -> None:
    first, last = rows.steps.first, rows.steps.last
    ends, starts = last[:-1], first[1:]
    _check_rows(first[:1], "reset shows a step that is not first")
    _check_rows(~(first & last), "a step is first and last")
    _check_rows(~ends | starts, "the step is last, but the next one is not first")
    _check_rows(ends | ~starts, "the step is not last, but the next one is first")
    _check_rows(np.isfinite(rows.reward), "the reward is not finite")
    _check_rows(~ends | (rows.reward == 0), "the step is last, but pays a reward")
    ended = rows.discount == 0
    _check_rows(~ends | ended, "the step is last, but its discount not 0")
    # -1 where the next step is the other player's.
    known = np.isin(rows.discount, (-1, 0, 1))
    _check_rows(known, "the discount is neither 0 nor 1, nor -1")
    told = ends | ~ended | last[1:]
    _check_rows(told, "the discount is 0, but the next step is not last")
    if (limit := env.max_episode_steps) is not None:
        lengths = _since_start(np.ones_like(rows.reward), first)
        _check_rows(lengths <= limit, f"the episode is longer than {limit} steps")


def _check_statistics(rows: _Rows, rewards_changed: bool) -> None:
    """What the environment says of its episodes is what the stream shows."""
    first = rows.steps.first
    same = rows.episode.length == _since_start(np.ones_like(rows.reward), first)
    _check_rows(same, "the episode's length is not that of the stream")
    if not rewards_changed:
        returns = _since_start(rows.reward, first)
        same = np.isclose(rows.episode.return_, returns, rtol=1e-4, atol=1e-4)
        _check_rows(same, "the episode's return is not the sum of its rewards")


def _since_start(
    x: Float[np.ndarray, "T B"], first: Bool[np.ndarray | Array, "T+1 B"]
) -> Float[np.ndarray, "T B"]:
    """Sums of x [T, B] over the episode so far, 0 where the next step is first."""
    total = np.zeros_like(x)
    for t in range(len(x)):
        before = total[t - 1] if t else 0.0
        total[t] = np.where(first[t + 1], 0.0, before + x[t])
    return total


def _check_environments_differ(rows: _Rows, other: _Rows) -> None:
    """If keys change anything, they change environments in different ways."""
    shown, others = (jax.tree.leaves((x.steps, x.reward)) for x in (rows, other))
    random = any((x != y).any() for x, y in zip(shown, others, strict=True))
    alike = all((x == x[:, :1]).all() for x in shown)
    assert not (random and alike and rows.reward.shape[1] > 1), (
        "all environments show the same, though keys change it: split the key over them"
    )


def _with_starts(steps: TimeStep) -> TimeStep:
    """Steps [T, B] in which episodes start and end at random, some in the first row."""
    first = jax.random.bernoulli(random.key(2), 0.3, steps.first.shape)
    first = first.at[0].set(jnp.arange(first.shape[1]) % 2 == 1)
    last = jnp.concatenate([first[1:], jnp.zeros_like(first[:1])])
    return steps._replace(first=first, last=last)


def _check_acting(
    agent: Agent, env: Environment, state: State, streams: rollout.Streams
) -> None:
    """Actions and extras fit the environment, and only `act` uses its key."""
    key, other_key = jax.random.split(random.key(3))
    spec = env.action_spec

    def both(key):
        inputs = (agent.params(state), streams.carry, streams.step, key)
        return {"act": agent.act(*inputs), "greedy": agent.greedy(*inputs)}

    compiled = jax.jit(both)
    acted = compiled(key)
    for name, (action, carry, extras) in acted.items():
        _check_action(name, spec, action, env.num_envs)
        _check_types(carry, streams.carry, f"the carry of {name}", "initial_carry")
        _check_batched(extras, env.num_envs, f"extras of {name}")
    traced_anew = jax.jit(lambda key: both(key))(key)
    _check_equal(traced_anew, acted, "the same key gave another action")
    greedy = compiled(other_key)["greedy"]
    _check_equal(greedy, acted["greedy"], "greedy depends on its key")


def _check_action(name: str, specs: Specs, action: Action, num_envs: int) -> None:
    leaves = dict(_leaves(specs, is_leaf=lambda x: isinstance(x, Spec)))
    given = dict(_leaves(action))
    assert [*given] == [*leaves], (
        f"{name} gives actions with the parts {[*given]}, the environment takes"
        f" {[*leaves]}"
    )
    for path, spec in leaves.items():
        x, expected = given[path], ((num_envs, *spec.shape), spec.dtype)
        assert (x.shape, x.dtype) == expected, (
            f"{name} gives actions{path} {x.dtype} {list(x.shape)}, the environment"
            f" takes {spec.dtype} {list(expected[0])}"
        )
        if not isinstance(spec, Box):
            low, high = _bounds(spec)
            inside = jnp.all((x >= low) & (x <= high))
            assert inside, f"{name} gives actions{path} outside {low} .. {high}"


def _with_ends(trajectory: Trajectory) -> Trajectory:
    """If no row is last: as if every other environment had been cut halfway."""
    steps = trajectory.steps
    if steps.last[:-1].any():
        return trajectory
    row, length = trajectory.reward.shape[0] // 2, len(steps.last)
    even = jnp.arange(steps.last.shape[1]) % 2 == 0
    cut = (jnp.arange(length) == row)[:, None] & even
    first = steps.first & ~cut | jnp.roll(cut, 1, axis=0)
    return trajectory._replace(
        steps=steps._replace(first=first, last=steps.last | cut),
        reward=jnp.where(cut[:-1], 0.0, trajectory.reward),
        discount=jnp.where(cut[:-1], 0.0, trajectory.discount),
    )


def _with_other_ends(trajectory: Trajectory, spec: Specs) -> Trajectory:
    last = trajectory.steps.last[:-1]
    other = other_action(spec, trajectory.action)
    return trajectory._replace(
        reward=jnp.where(last, 100.0, trajectory.reward),
        action=_where(last, other, trajectory.action),
    )


def _gradient(
    agent: Agent, state: State, trajectory: Trajectory, *, key: PRNGKey, axis: Axis
) -> Grads:
    """As `loops.learn` takes it for its first update, without minibatches."""
    batch = agent.prepare(state, trajectory, axis)
    grads, _ = agent.grad(state, batch, key, axis)
    return loops.combined(grads, agent, axis)


def _applied(
    agent: Agent, state: State, trajectory: Trajectory, *, key: PRNGKey
) -> State:
    batch = agent.prepare(state, trajectory, Axis())
    grads, info = agent.grad(state, batch, key, Axis())
    return agent.apply(state, grads, info.metrics)


def _check_rows(holds: Bool[np.ndarray | Array, "T B *shape"], otherwise: str) -> None:
    if not holds.all():
        row, env = np.argwhere(~holds)[0][:2]
        raise AssertionError(f"row {row}, environment {env}: {otherwise}")


def _check_batched(tree: PyTree, num_envs: int, what: str) -> None:
    for name, leaf in _leaves(tree):
        assert leaf.shape[:1] == (num_envs,), (
            f"{what}{name} is {list(leaf.shape)}: its first axis must be that of"
            f" the {num_envs} environments"
        )


def _check_finite(tree: PyTree, what: str) -> None:
    for name, leaf in _leaves(tree):
        assert np.isfinite(leaf).all(), f"{what}: {name} is not finite"


def _check_types(actual: PyTree, expected: PyTree, what: str, other: str) -> None:
    structures = jax.tree.structure(actual), jax.tree.structure(expected)
    assert structures[0] == structures[1], (
        f"{what} is {structures[0]}, {other} is {structures[1]}"
    )
    for name, x, y in _leaves(actual, expected):
        assert (x.shape, x.dtype) == (y.shape, y.dtype), (
            f"{what}{name} is {x.dtype} {list(x.shape)}, in {other} it is"
            f" {y.dtype} {list(y.shape)}"
        )


def _check_equal(
    actual: PyTree, expected: PyTree, otherwise: str, tolerance: float = 0.0
) -> None:
    """Element by element, to a tolerance both absolute and relative."""
    _check_types(actual, expected, "one result", "the other")
    for name, *leaves in _leaves(actual, expected):
        x, y = map(np.asarray, leaves)
        close = np.isclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True)
        if not close.all():
            where = tuple(int(i) for i in np.argwhere(~close)[0])
            raise AssertionError(
                f"{otherwise}: {name}{list(where)} is {x[where]} in place of {y[where]}"
            )


def _check_close(
    actual: PyTree, expected: PyTree, otherwise: str, tolerance: float
) -> None:
    """To a tolerance relative to the largest element of the tree."""
    largest = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(expected))
    x, y = jax.tree.map(lambda x: x / (largest or 1.0), (actual, expected))
    _check_equal(x, y, otherwise, tolerance)


def _where(condition: Bool[Array, "*N"], xs: PyTree, ys: PyTree) -> PyTree:
    """`jnp.where` row by row."""

    def leaf(x: Array, y: Array) -> Array:
        rows = jnp.expand_dims(condition, range(condition.ndim, x.ndim))
        return jnp.where(rows, x, y)

    return jax.tree.map(leaf, xs, ys)


def _leaves(
    *trees: PyTree, is_leaf: Callable[[Any], bool] | None = None
) -> Iterator[tuple[Any, ...]]:
    """(path, its leaf in each of the trees), which have the same structure."""
    found = jax.tree.leaves_with_path(trees[0], is_leaf)
    paths = [jax.tree_util.keystr(path) for path, _ in found]
    return zip(paths, *(jax.tree.leaves(x, is_leaf) for x in trees), strict=True)
