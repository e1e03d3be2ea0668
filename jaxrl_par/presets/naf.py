"""NAF from replay, on devices or with collectors in threads: Pendulum by default.

Q is quadratic in the action, so its best action and its maximum are outputs, and one
loss learns all. Topologies are those of `sac`. Actions need no bounds: without any,
`--naf.warm-up 0`.

Asynchronous NAF is one trainer that waits for nobody, and collectors that pull its
parameters where an episode begins; with 5 updates of 128 rows, at most, for a row:

    --topology threads --threads.schedule decoupled --threads.num-actors 4
    --pull episode --threads.pace.samples-per-insert 640

The trainer waits only where it would be above that ratio, which is reported; without it
it goes on as fast as it can. Collectors wait for nothing but room in the queue.

Sources: Gu et al., arXiv:1603.00748 and arXiv:1610.00633.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.actor_critic import NAFConfig, naf
from jaxrl_par.algorithms.pulling import pulling_at_starts
from jaxrl_par.networks import normalised_advantage
from jaxrl_par.presets.sac import OffPolicyArgs, leave
from jaxrl_par.replay import Buffer, without_carry
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(OffPolicyArgs):
    """Continuous Q-learning with normalised advantage functions."""

    part: ClassVar[str] = "naf"

    naf: NAFConfig = NAFConfig()
    pull: Literal["unroll", "episode"] = "unroll"
    """When who acts takes newer parameters: with each unroll, or each environment where
    its episode begins."""

    def make_buffer(self, agent: Agent) -> Buffer:
        # What noise was like, and which parameters were held, is not learned from.
        forgetful = agent._replace(initial_carry=lambda num_envs: ())
        return without_carry(super().make_buffer(forgetful))

    def normalized(self, agent: Agent) -> Agent:
        agent = super().normalized(agent)
        return pulling_at_starts(agent) if self.pull == "episode" else agent


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent:
    """NAF for these observations and actions."""
    network = normalised_advantage(*specs, args.network)
    return naf(network, specs[1], optimizer, args.recorded)


EXPERIMENT = cli.Experiment(Args, make_agent, leave)
