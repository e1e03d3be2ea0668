"""A policy beside a critic from replay, which tells it something of each trajectory.

It is a chain of two stages:

    policy   learns from the newest trajectory, with what the critic says of it
    critic   keeps the trajectory, and learns from what is kept: about the policy of now

The critic comes second, so that what it says of actions does not come of these. Each
learns by its own optimizer, if it has one.

Source: Gu et al., arXiv:1611.02247, algorithm 1.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from jaxrl_par.axis import Axis
from jaxrl_par.loops.chain import Parts, Stage, chain
from jaxrl_par.loops.learner import Data, Learner, learner_of
from jaxrl_par.measured import Metric
from jaxrl_par.types import Agent, Extras, Metrics, PRNGKey, State, Trajectory

METRICS = {
    "critic_*": Metric("as without critic_", "of the critic's updates in the step")
}

Tell = Callable[[State, State, Trajectory], Extras]
"""(the critic's state, the policy's, trajectory) -> more extras, leaves [T, B, ...]"""


class _Given(NamedTuple):
    policy: Learner
    critic: Learner
    tell: Tell
    of_policy: Callable[[State], Any]


def judged(
    policy: Agent | Learner,
    critic: Agent | Learner,
    tell: Tell,
    of_policy: Callable[[State], Any],
) -> Learner:
    """Learns the policy with what the critic tells, then the critic.

    Metrics of the critic begin with "critic_".

    Args:
      critic: its state has a field `policy`, empty but while it learns.
      of_policy: from the policy's state to what goes there.

    Raises:
      RefusedError: either is no learner.
    """
    given = _Given(learner_of(policy), learner_of(critic), tell, of_policy)
    learner = given.policy
    return chain(
        acts="policy",
        policy=Stage(
            learner.init,
            partial(_policy, given),
            learner.start,
            actor=learner.actor._replace(params=learner.params),
            in_order=learner.in_order,
            prefix="",
        ),
        critic=Stage(given.critic.init, partial(_critic, given), given.critic.start),
    )


def _policy(
    given: _Given,
    own: State,
    data: Data,
    trajectory: Trajectory,
    key: PRNGKey,
    axis: Axis,
    parts: Parts,
) -> tuple[State, Data, Metrics]:
    more = given.tell(parts.state.critic, own, trajectory)
    trajectory = trajectory._replace(extras=trajectory.extras | more)
    return given.policy.learn(own, data, trajectory, key, axis)


def _critic(
    given: _Given,
    own: State,
    data: Data,
    trajectory: Trajectory,
    key: PRNGKey,
    axis: Axis,
    parts: Parts,
) -> tuple[State, Data, Metrics]:
    own = own._replace(policy=given.of_policy(parts.state.policy))
    own, data, metrics = given.critic.learn(own, data, trajectory, key, axis)
    # What is there twice cannot be donated.
    return own._replace(policy=()), data, metrics
