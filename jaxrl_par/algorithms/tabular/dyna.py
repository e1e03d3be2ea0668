"""Dyna: Q-learning that also learns from what it remembers, between two real steps.

    act in s, observe r and s'
    Q(s, a) <- Q(s, a) + alpha (r + discount max_b Q(s', b) - Q(s, a))
    remember (s, a, r, s')
    n times: pick a pair, and move its Q towards the backup of the model

    seen         Dyna-Q: a pair that was tried, each as often as every other
    all          Dyna-Q+: any action of a state that was seen. One that was never tried
                 is thought to stay where it is and to pay nothing. Backups have a bonus
                 kappa sqrt(tau), tau real steps since the pair was last tried
    prioritised  prioritised sweeping: see `sweeping`. Nothing but the queue learns

With n = 0 the first two are Q-learning.

Sources: Sutton, Integrated architectures for learning, planning, and reacting (ICML
1990); Sutton and Barto, Reinforcement Learning, 2nd edition, sections 8.2 to 8.4; Moore
and Atkeson, Machine Learning 13 (1993).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.algorithms.tabular import sweeping
from jaxrl_par.algorithms.tabular.experience import (
    Experience,
    backup,
    nothing,
    tried,
)
from jaxrl_par.algorithms.tabular.mdp import (
    MDP,
    Transition,
    go_on,
    sample_transitions,
    start_states,
)
from jaxrl_par.algorithms.tabular.tables import (
    StepSize,
    Table,
    constant,
    moved,
    new_table,
    updated,
)
from jaxrl_par.errors import ReadIf, at_least, not_between, not_chosen, refuse
from jaxrl_par.exploration import epsilon_greedy
from jaxrl_par.types import PRNGKey


@dataclass(frozen=True)
class DynaConfig:
    """How to act, and how much to think. Numbers but `num_planning` may be traced."""

    read_if: ClassVar[ReadIf] = {
        "bonus": ("planning", ("all",)),
        "threshold": ("planning", ("prioritised",)),
    }
    """What each of these fields is for: another one, and its values."""

    planning: Literal["seen", "all", "prioritised"] = "seen"
    num_planning: int = 5
    """n: updates from the model after each real step, at most."""
    epsilon: float = 0.1
    """Probability of any action, in place of the best."""
    step_size: StepSize = constant(0.1)
    """Of real and of planned updates."""
    memory: float = 0.0
    """Weight of what a pair led to in the try before the latest. 0: the latest alone,
    for problems without chance. 1: all tries alike."""
    bonus: float = 1e-3
    """kappa, per square root of a step."""
    threshold: float = 1e-4
    """theta: the error above which a pair is worth an update."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_between(self, epsilon=(0, 1), memory=(0, 1)) + not_chosen(self)
        return found + at_least(self, num_planning=0, bonus=0, threshold=0)


class DynaState(NamedTuple):
    """What one learner knows, and where it is."""

    table: Table
    """Q [S, A]."""
    model: Experience
    queue: Float[Array, "S A"]
    """Priorities of the pairs that wait for an update; 0 for all others."""
    state: Int[Array, " 1"]
    time: Int[Array, ""]
    """Real steps."""
    planned: Int[Array, ""]
    """Updates from the model."""


def new_learner(key: PRNGKey, mdp: MDP) -> DynaState:
    """Q = 0, and nothing known, where an episode starts."""
    num_states, num_actions, _ = mdp.transitions.shape
    return DynaState(
        new_table((num_states, num_actions)),
        nothing(num_states, num_actions),
        jnp.zeros((num_states, num_actions)),
        start_states(key, mdp, 1),
        jnp.int32(0),
        jnp.int32(0),
    )


def dyna_update(
    key: PRNGKey,
    now: DynaState,
    transition: Transition,
    gamma: float | Float[Array, ""],
    config: DynaConfig,
    accepted: Bool[Array, ""] | bool = True,
) -> DynaState:
    """After one real step, wherever it is from, and what is planned behind it.

    Args:
      transition: fields [1].
      gamma: for actions that were never tried.
      accepted: whether it is a step at all: no row of a stream that is `last` is one.
    """
    time = now.time + 1
    model = tried(now.model, transition, time, config.memory)
    after = now._replace(model=model, time=time)
    if config.planning == "prioritised":
        pair = (transition.state[0], transition.action[0])
        given = (now.table, now.queue, model, pair, config.step_size, config.threshold)
        sweep = sweeping.swept(*given, config.num_planning)
        planned = now.planned + sweep.updates
        after = DynaState(sweep.table, model, sweep.queue, now.state, time, planned)
    else:
        following = jnp.max(now.table.values[transition.next_state], axis=1)
        targets = transition.reward + transition.discount * following
        index = (transition.state, transition.action)
        table = updated(now.table, index, targets, config.step_size)
        after = _planned(key, after._replace(table=table), gamma, config)
    return jax.tree.map(lambda x, y: jnp.where(accepted, x, y), after, now)


def dyna_step(
    key: PRNGKey, now: DynaState, mdp: MDP, config: DynaConfig
) -> tuple[DynaState, Transition]:
    """Acts once, learns from it, and plans. Fields of the transition are [1]."""
    action_key, transition_key, start_key, plan_key = jax.random.split(key, 4)
    values = now.table.values[now.state]
    action = epsilon_greedy(action_key, values, config.epsilon)
    transition = sample_transitions(transition_key, mdp, now.state, action)
    now = dyna_update(plan_key, now, transition, mdp.gamma, config)
    return now._replace(state=go_on(start_key, mdp, transition)), transition


def learned_by_dyna(
    key: PRNGKey, mdp: MDP, config: DynaConfig = DynaConfig(), *, num_steps: int
) -> tuple[DynaState, Transition]:
    """Where `num_steps` real steps lead, and what they were, fields [T].

    It can be vmapped over keys, problems and the numbers of `config`.

    Raises:
      ValueError: `config` is out of range, or `num_steps` is below 1.
    """
    refuse(config, num_steps=num_steps)
    start_key, steps_key = jax.random.split(key)

    def step(now: DynaState, index):
        return dyna_step(jax.random.fold_in(steps_key, index), now, mdp, config)

    first = new_learner(start_key, mdp)
    learned, steps = jax.lax.scan(step, first, jnp.arange(num_steps))
    return learned, jax.tree.map(lambda x: x[:, 0], steps)


def _planned(
    key: PRNGKey, now: DynaState, gamma: float | Float[Array, ""], config: DynaConfig
) -> DynaState:
    """n updates of pairs that are drawn."""
    if config.num_planning == 0:
        return now
    model, num_actions = now.model, now.queue.shape[1]
    allowed = model.known
    if config.planning == "all":
        allowed = jnp.broadcast_to(jnp.any(allowed, 1, keepdims=True), allowed.shape)
    places = jnp.cumsum(allowed.reshape(-1), dtype=jnp.int32)
    drawn = jax.random.randint(key, (config.num_planning,), 0, places[-1])
    pairs = jnp.searchsorted(places, drawn, side="right").astype(jnp.int32)

    def once(table: Table, pair: Int[Array, ""]):
        state, action = pair // num_actions, pair % num_actions
        target = backup(model, table.values, state, action)
        if config.planning == "all":
            stays = gamma * jnp.max(table.values[state])
            target = jnp.where(model.known[state, action], target, stays)
            age = (now.time - model.tried[state, action]).astype(jnp.float32)
            target += config.bonus * jnp.sqrt(age)
        return moved(table, (state, action), target, config.step_size), None

    table, _ = jax.lax.scan(once, now.table, pairs)
    return now._replace(table=table, planned=now.planned + config.num_planning)
