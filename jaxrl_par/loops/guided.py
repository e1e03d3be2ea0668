"""Guided policy search as a program: controllers act, improve, and teach one policy.

    1  the global policy, or each controller, acts several times from each initial state
    2  dynamics are fitted, for each initial state
    3  every controller takes a step
    4  the global policy learns what all controllers would do

Initial states are drawn once. They have no order among them: devices have a share each,
with randomness of its own for every initial state, wherever that is.

Sources: Levine et al., arXiv:1504.00702; Montgomery and Levine, arXiv:1607.04614.
"""

from collections.abc import Callable
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
from jaxrl_par.guidance import Controllers, GlobalPolicy, Guide, Rollouts
from jaxrl_par.loops.lessons import Recent, kept, none_yet, own_keys, taught
from jaxrl_par.loops.run import Program, Run, count_skipped, new_run, unroll_keys
from jaxrl_par.types import Agent, Mean, Metrics, Obs, PRNGKey, State, TimeStep

ActsFn = Callable[[Controllers, Array, Obs, PRNGKey], Float[Array, " A"]]
"""(controller of a step, state, what is seen, key) -> action"""


class Local(NamedTuple):
    """What a device or a worker has for its J initial states."""

    scenes: Any
    first: Obs
    """[J, ...]: initial states, and what is seen of them."""
    guide: Any
    recent: Recent


class Sizes(NamedTuple):
    """How much of everything there is."""

    num_states: int
    """Initial states of each instance along the axis, or of each worker."""
    num_rollouts: int
    """From each of them, in each iteration."""
    num_updates: int
    """Of the global policy, in each iteration."""
    batch_size: int
    """Rows of each initial state in an update."""
    num_kept: int = 1
    """Iterations whose lessons are kept."""


class Search(NamedTuple):
    """Who learns what, and how much of it."""

    agent: Agent
    """As `algorithms.gps.global_policy` makes."""
    control: Control
    guide: Guide
    sizes: Sizes

    @property
    def rows(self) -> int:
        """Environment steps of an iteration."""
        return self.sizes.num_states * self.sizes.num_rollouts * self.control.num_steps


def guided(search: Search, *, axis: Axis = Axis()) -> Program:
    """Every controller takes a step, then the global policy learns from all.

    Raises:
      ValueError: a size is below 1, or the agent was made for other specs.
    """
    refuse_search(search)
    agent, sizes = search.agent, search.sizes

    def init(key: PRNGKey) -> Run:
        learn_key, env_key, root = jax.random.split(key, 3)
        local = begin(search, env_key, axis.index)
        return new_run(policy(search, learn_key, local), local, root)

    def step(run: Run) -> tuple[Run, Metrics]:
        act_key, learn_key = unroll_keys(run.key, run.progress.updates, 0)
        numbers = numbers_of(sizes, axis.index)
        known = agent.params(run.learner)
        given = search, known, known, run.local, act_key, numbers, axis
        local, metrics = practised(*given)
        recent = jax.tree.map(lambda x: x[None], local.recent)
        state, learned = taught(
            agent, axis.after(run.learner, metrics), recent, learn_key, numbers[None],
            sizes.batch_size, sizes.num_updates, axis,
        )  # fmt: skip
        return advanced(search, run, state, local, metrics | learned, axis)

    return Program(init, step)


def refuse_search(search: Search) -> None:
    """Accepts sizes of 1 or more, and an agent that was made for what is controlled.

    Raises:
      RefusedError: they are others.
    """
    agent, control = search.agent, search.control
    refuse(**search.sizes._asdict())
    refuse_any(lacking("an Agent, as algorithms make", "act", "specs", agent=agent))
    remedy = "Make its network from the specs of this environment"
    has = f"{control.name} has"
    compatible.refuse_others(agent.specs, control.specs, "the agent", has, remedy)


def numbers_of(sizes: Sizes, index: Int[Array, ""] | int) -> Int[Array, " J"]:
    """Those of the initial states of an instance or worker, among all."""
    return index * sizes.num_states + jnp.arange(sizes.num_states, dtype=jnp.int32)


def begin(search: Search, key: PRNGKey, index: Int[Array, ""] | int) -> Local:
    """What an instance or a worker has at first."""
    sizes, guide = search.sizes, search.guide
    keys = own_keys(key, numbers_of(sizes, index))
    scenes, first = jax.vmap(search.control.start)(keys)
    local = guide.init(sizes.num_states)

    def lessons(local, scenes, first):
        controllers = guide.controllers(local)
        played = sampled(search, by_controller, controllers, scenes, first, keys)
        means = jnp.zeros_like(played.actions)
        covariance = controllers.covariance[0, 0]
        return guide.improve(local, scenes, played, means, covariance, Axis())[1]

    shapes = jax.eval_shape(lessons, local, scenes, first)
    return Local(scenes, first, local, none_yet(shapes, sizes.num_kept))


def policy(search: Search, key: PRNGKey, local: Local) -> State:
    """A new global policy; all that is read of an instance are shapes."""
    no = jnp.zeros(search.sizes.num_states, bool)
    return search.agent.init(key, TimeStep(local.first, no, no))


def sampled(
    search: Search,
    acts: ActsFn,
    controllers: Controllers,
    scenes: Any,
    first: Obs,
    keys: Any,
) -> Rollouts:
    """Rollouts from all initial states, [J, N, T, ...]."""
    control = search.control

    def one(controllers: Controllers, scene: Any, first: Obs, key: PRNGKey) -> Rollouts:
        def step(now, inputs):
            state, obs = now
            controller, key = inputs
            x, (act_key, env_key) = control.vector(state), jax.random.split(key)
            action = acts(controller, x, obs, act_key)
            state, after, cost = control.step(state, action, env_key)
            return (state, after), (x, action, obs, cost)

        keys = jax.random.split(key, control.num_steps)
        (last, _), rows = jax.lax.scan(step, (scene, first), (controllers, keys))
        states, actions, obs, costs = rows
        states = jnp.concatenate([states, control.vector(last)[None]])
        return Rollouts(states, actions, obs, costs)

    def several(controllers, scene, first, key):
        keys = jax.random.split(key, search.sizes.num_rollouts)
        return jax.vmap(partial(one, controllers, scene, first))(keys)

    return jax.vmap(several)(controllers, scenes, first, keys)


def acting(search: Search, policy: GlobalPolicy) -> ActsFn:
    """Who chooses the actions of rollouts."""
    agent = search.agent

    def by_policy(
        controller: Controllers, x: Array, obs: Obs, key: PRNGKey
    ) -> Float[Array, " A"]:
        no = jnp.zeros(1, bool)
        step = TimeStep(jax.tree.map(lambda x: x[None], obs), no, no)
        action, *_ = agent.act(policy, agent.initial_carry(1), step, key)
        return action[0]

    return by_policy if search.guide.on_policy else by_controller


def by_controller(
    controller: Controllers, x: Array, obs: Obs, key: PRNGKey
) -> Float[Array, " A"]:
    """A draw of one step's controller."""
    noise = jax.random.normal(key, controller.offset.shape)
    return controller.mean(x) + jnp.linalg.cholesky(controller.covariance) @ noise


def practised(
    search: Search,
    acted: GlobalPolicy,
    policy: GlobalPolicy,
    local: Local,
    key: PRNGKey,
    numbers: Int[Array, " J"],
    axis: Axis,
) -> tuple[Local, Metrics]:
    """Steps 1 to 3, with lessons added to those that are kept.

    Args:
      acted: the global policy when rollouts began.
      policy: the one that controllers stay near.
    """
    guide, keys = search.guide, own_keys(key, numbers)
    controllers = guide.controllers(local.guide)
    acts, start = acting(search, acted), (local.scenes, local.first)
    played = sampled(search, acts, controllers, *start, keys)
    means = _means(search.agent, policy, played.obs, played.actions.shape)
    improved, lessons, metrics = guide.improve(
        local.guide, local.scenes, played, means, policy.covariance, axis
    )
    returns = axis.after(-jnp.sum(played.costs, axis=2), metrics)
    total = axis.sum(Mean(jnp.sum(returns), jnp.float32(returns.size)))
    local = local._replace(guide=improved, recent=kept(local.recent, lessons))
    return local, metrics | {"episode_return": total}


def advanced(
    search: Search, run: Run, state: State, local: Any, metrics: Metrics, axis: Axis
) -> tuple[Run, Metrics]:
    """The run after an iteration, counted."""
    env_steps = axis.sum(axis.after(jnp.int32(search.rows), metrics))
    progress = count_skipped(run.progress.counted(env_steps), metrics)
    state = passed(state, env_steps)
    return run._replace(learner=state, local=local, progress=progress), metrics


def _means(
    agent: Agent, policy: GlobalPolicy, obs: Obs, shape: tuple[int, ...]
) -> Float[Array, "J N T A"]:
    """What the global policy would do where the rollouts were."""
    number = shape[0] * shape[1] * shape[2]
    rows = jax.tree.map(lambda x: x.reshape(number, *x.shape[3:]), obs)
    no = jnp.zeros(number, bool)
    carry, key = agent.initial_carry(number), jax.random.key(0)
    action, *_ = agent.greedy(policy, carry, TimeStep(rows, no, no), key)
    return action.reshape(shape)
