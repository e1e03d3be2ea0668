"""First priorities, by whoever acted: what Ape-X's actors compute.

All are at the parameters that acted, so a target is no double estimate: the network
chooses and values. What it said of each row is kept while it acts; only the row behind
an unroll is computed for the priorities.

Source: Horgan et al., arXiv:1803.00933, algorithm 1, line 9.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxrl_par.algorithms.dqn.config import DQNConfig
from jaxrl_par.algorithms.dqn.targets import best, of_action, reached, targets, where
from jaxrl_par.algorithms.dqn.values import Outputs, Values
from jaxrl_par.networks import Network
from jaxrl_par.returns import at_rows
from jaxrl_par.types import Carry, Extras, Params, Trajectory


def kept(action: Int[Array, " B"], outputs: Outputs, kind: Values) -> Extras:
    """What `completed` needs of a row: outputs of its action, and of the best."""
    chosen = of_action(action, outputs)
    return {"chosen": chosen, "best": best(outputs, outputs, kind)}


def completed(
    network: Network,
    config: DQNConfig,
    online: Params,
    memory: Carry,
    trajectory: Trajectory,
) -> Extras:
    """The extras of an unroll, with `priority` [T, B] in place of what was kept.

    Args:
      memory: after the last row.
    """
    kind, extras = config.kind(), dict(trajectory.extras)
    chosen, bests = extras.pop("chosen"), extras.pop("best")
    final = jax.tree.map(lambda x: x[-1], trajectory.steps)
    outputs, _ = network.apply(online, memory, final)
    bests = jnp.concatenate([bests, best(outputs, outputs, kind)[None]])
    ahead, last = reached(trajectory, config), trajectory.rows.last
    made = targets(ahead, at_rows(bests, ahead.index), kind, config)
    # A `last` row's action may be one that is impossible there, of -inf.
    compared = kind.compared(where(last, 0.0, chosen), *made)
    return extras | {"priority": jnp.where(last, 0.0, compared.priority)}
