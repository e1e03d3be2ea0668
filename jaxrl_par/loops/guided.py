"""Guided policy search as a program: controllers act, improve, and teach one policy.

    1  every controller acts, several times from its own initial state
    2  dynamics are fitted, for each initial state
    3  every controller takes a step
    4  the global policy learns what all controllers would do

Initial states are drawn once. Their steps have no order among them: devices have a
share each, with randomness of its own for every initial state, wherever that is.

Sources: Levine et al., arXiv:1504.00702; Montgomery and Levine, arXiv:1607.04614.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl_par import compatible
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import passed
from jaxrl_par.envs.control import Control
from jaxrl_par.errors import lacking, refuse, refuse_any
from jaxrl_par.guidance import Controllers, GlobalPolicy, Guide, Lessons, Rollouts
from jaxrl_par.loops.learner import over_updates
from jaxrl_par.loops.run import Program, Run, count_skipped, new_run, unroll_keys
from jaxrl_par.loops.updates import update
from jaxrl_par.types import (
    Agent,
    Mean,
    Metrics,
    Obs,
    PRNGKey,
    State,
    TimeStep,
)


class Recent(NamedTuple):
    """The newest R lessons of J initial states."""

    lessons: Lessons
    """Leaves [R, J, ...]."""
    count: Int[Array, ""]
    """Lessons that there were."""


class Local(NamedTuple):
    """What a device has for its J initial states."""

    scenes: Any
    first: Obs
    """[J, ...]: initial states, and what is seen of them."""
    guide: Any
    recent: Recent


class Sizes(NamedTuple):
    """How much of everything there is."""

    num_states: int
    """Initial states of this instance along the axis."""
    num_rollouts: int
    """From each of them, in each iteration."""
    num_updates: int
    """Of the global policy, in each iteration."""
    batch_size: int
    """Rows of each initial state in an update."""
    num_kept: int = 1
    """Iterations whose lessons are kept."""


def guided(
    agent: Agent,
    control: Control,
    guide: Guide,
    sizes: Sizes,
    *,
    axis: Axis = Axis(),
) -> Program:
    """Every controller takes a step, then the global policy learns from all.

    Args:
      agent: as `algorithms.gps.global_policy` makes.

    Raises:
      ValueError: a size is below 1, or the agent was made for other specs.
    """
    refuse(**sizes._asdict())
    refuse_others(agent, control)

    def init(key: PRNGKey) -> Run:
        learn_key, env_key, root = jax.random.split(key, 3)
        state, local = begin(
            agent, control, guide, sizes, learn_key, env_key, axis.index
        )
        return new_run(state, local, root)

    def step(run: Run) -> tuple[Run, Metrics]:
        act_key, learn_key = unroll_keys(run.key, run.progress.updates, 0)
        numbers = numbers_of(sizes, axis.index)
        params = agent.params(run.learner)
        given = agent, control, guide, sizes
        local, metrics = practised(*given, params, run.local, act_key, numbers, axis)
        learn_key = jax.random.wrap_key_data(
            axis.after(jax.random.key_data(learn_key), metrics)
        )
        state, learned = taught(
            agent, sizes, run.learner, local.recent, learn_key, numbers, axis
        )
        metrics = metrics | learned
        rows = jnp.int32(sizes.num_states * sizes.num_rollouts * control.num_steps)
        env_steps = axis.sum(axis.after(rows, metrics))
        progress = count_skipped(run.progress.counted(env_steps), metrics)
        run = run._replace(
            learner=passed(state, env_steps), local=local, progress=progress
        )
        return run, metrics

    return Program(init, step)


def refuse_others(agent: Agent, control: Control) -> None:
    """Accepts an agent that was made for what is controlled.

    Raises:
      RefusedError: it was not, or is no agent.
    """
    refuse_any(lacking("an Agent, as algorithms make", "act", "specs", agent=agent))
    remedy = "Make its network from the specs of this environment"
    has = f"{control.name} has"
    compatible.refuse_others(agent.specs, control.specs, "the agent", has, remedy)


def numbers_of(sizes: Sizes, index: Int[Array, ""] | int) -> Int[Array, " J"]:
    """Those of an instance's initial states, among all."""
    return index * sizes.num_states + jnp.arange(sizes.num_states, dtype=jnp.int32)


def begin(
    agent: Agent,
    control: Control,
    guide: Guide,
    sizes: Sizes,
    learn_key: PRNGKey,
    env_key: PRNGKey,
    index: Int[Array, ""] | int,
) -> tuple[State, Local]:
    """A global policy, and what an instance has at first."""
    keys = own_keys(env_key, numbers_of(sizes, index))
    scenes, first = jax.vmap(control.start)(keys)
    local = guide.init(sizes.num_states)
    no = jnp.zeros(sizes.num_states, bool)
    state = agent.init(learn_key, TimeStep(first, no, no))

    def made(local, scenes, first):
        controllers = guide.controllers(local)
        played = sampled(control, controllers, scenes, first, keys, sizes.num_rollouts)
        policy = agent.params(state)
        means = _means(agent, policy, played.obs, played.actions.shape)
        return guide.improve(local, scenes, played, means, policy.covariance, Axis())[1]

    shapes = jax.eval_shape(made, local, scenes, first)
    kept = jax.tree.map(
        lambda x: jnp.zeros((sizes.num_kept, *x.shape), x.dtype), shapes
    )
    return state, Local(scenes, first, local, Recent(kept, jnp.int32(0)))


def own_keys(key: PRNGKey, numbers: Int[Array, " J"]) -> Any:
    """A key of each initial state, the same wherever it is."""
    return jax.vmap(partial(jax.random.fold_in, key))(numbers)


def sampled(
    control: Control,
    controllers: Controllers,
    scenes: Any,
    first: Obs,
    keys: Any,
    num_rollouts: int,
) -> Rollouts:
    """Rollouts of all controllers, [J, N, T, ...]."""

    def one(controllers: Controllers, scene: Any, first: Obs, key: PRNGKey) -> Rollouts:
        def step(now, inputs):
            state, obs = now
            (gain, offset, root), key = inputs
            x, (noise_key, env_key) = control.vector(state), jax.random.split(key)
            noise = root @ jax.random.normal(noise_key, offset.shape)
            action = gain @ x + offset + noise
            state, after, cost = control.step(state, action, env_key)
            return (state, after), (x, action, obs, cost)

        keys = jax.random.split(key, control.num_steps)
        roots = jnp.linalg.cholesky(controllers.covariance)
        inputs = controllers._replace(covariance=roots), keys
        (last, _), rows = jax.lax.scan(step, (scene, first), inputs)
        states, actions, obs, costs = rows
        states = jnp.concatenate([states, control.vector(last)[None]])
        return Rollouts(states, actions, obs, costs)

    def several(controllers, scene, first, key):
        keys = jax.random.split(key, num_rollouts)
        return jax.vmap(partial(one, controllers, scene, first))(keys)

    return jax.vmap(several)(controllers, scenes, first, keys)


def practised(
    agent: Agent,
    control: Control,
    guide: Guide,
    sizes: Sizes,
    policy: GlobalPolicy,
    local: Local,
    key: PRNGKey,
    numbers: Int[Array, " J"],
    axis: Axis,
) -> tuple[Local, Metrics]:
    """Steps 1 to 3, with lessons added to those that are kept."""
    keys = own_keys(key, numbers)
    controllers = guide.controllers(local.guide)
    given = control, controllers, local.scenes, local.first, keys
    played = sampled(*given, sizes.num_rollouts)
    means = _means(agent, policy, played.obs, played.actions.shape)
    improved, lessons, metrics = guide.improve(
        local.guide, local.scenes, played, means, policy.covariance, axis
    )
    returns = axis.after(-jnp.sum(played.costs, axis=2), metrics)
    total = axis.sum(Mean(jnp.sum(returns), jnp.float32(returns.size)))
    recent = _kept(local.recent, lessons)
    return local._replace(guide=improved, recent=recent), metrics | {
        "episode_return": total
    }


def taught(
    agent: Agent,
    sizes: Sizes,
    state: State,
    recent: Recent,
    key: PRNGKey,
    numbers: Int[Array, " J"],
    axis: Axis,
) -> tuple[State, Metrics]:
    """Step 4: so many updates of the global policy."""

    def once(state: State, key: PRNGKey) -> tuple[State, Metrics]:
        batch = drawn(recent, own_keys(key, numbers), sizes.batch_size)
        state, info = update(agent, state, batch, key, axis)
        return state, info.metrics

    keys = jax.random.split(key, sizes.num_updates)
    state, metrics = jax.lax.scan(once, state, keys)
    metrics = over_updates(metrics)
    newest = (recent.count - 1) % sizes.num_kept
    lessons = jax.tree.map(lambda x: x[newest], recent.lessons)
    return agent.observe(state, axis.after(lessons, metrics), axis), metrics


def drawn(recent: Recent, keys: Any, batch_size: int) -> Lessons:
    """Rows [J * batch_size, ...], as many of each initial state."""
    num_kept, _, num_rollouts, length, _ = recent.lessons.mean.shape
    kept = jnp.minimum(recent.count, num_kept)

    def of_one(lessons: Lessons, key: PRNGKey) -> Lessons:
        old_key, rollout_key, time_key = jax.random.split(key, 3)
        shape = (batch_size,)
        old = jax.random.randint(old_key, shape, 0, kept)
        one = jax.random.randint(rollout_key, shape, 0, num_rollouts)
        time = jax.random.randint(time_key, shape, 0, length)
        return Lessons(
            jax.tree.map(lambda x: x[old, one, time], lessons.obs),
            lessons.mean[old, one, time],
            lessons.precision[old, time],
            lessons.weight[old, time],
        )

    rows = jax.vmap(of_one, in_axes=(1, 0))(recent.lessons, keys)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)


def _kept(recent: Recent, lessons: Lessons) -> Recent:
    place = recent.count % len(recent.lessons.weight)
    kept = jax.tree.map(lambda x, new: x.at[place].set(new), recent.lessons, lessons)
    return Recent(kept, recent.count + 1)


def _means(
    agent: Agent, policy: GlobalPolicy, obs: Obs, shape: tuple[int, ...]
) -> Float[Array, "J N T A"]:
    """What the global policy would do where the rollouts were."""
    number = shape[0] * shape[1] * shape[2]
    rows = jax.tree.map(lambda x: x.reshape(number, *x.shape[3:]), obs)
    no = jnp.zeros(number, bool)
    step = TimeStep(rows, no, no)
    action, *_ = agent.greedy(
        policy, agent.initial_carry(number), step, jax.random.key(0)
    )
    return action.reshape(shape)
