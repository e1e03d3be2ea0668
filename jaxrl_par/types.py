"""The records that the parts of jaxrl_par exchange. It imports none of them.

Axis letters of all shapes: T time, B environments or sequences, A actions, D features,
P population. Trajectories are time-major, [T, B, ...], because `jax.lax.scan` writes
and reads the first axis.

Two kinds of record, and the kind says whether JAX traces it: a `NamedTuple` is a pytree
of arrays (or of functions), a frozen dataclass is static and never a pytree.
"""

from collections.abc import Callable
from functools import reduce
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jaxrl_par.axis import Axis
from jaxrl_par.masks import Masked as Masked
from jaxrl_par.specs import Box as Box
from jaxrl_par.specs import Discrete as Discrete
from jaxrl_par.specs import MultiDiscrete as MultiDiscrete
from jaxrl_par.specs import Spec as Spec
from jaxrl_par.specs import Specs as Specs
from jaxrl_par.stream import Extras as Extras
from jaxrl_par.stream import Mean as Mean
from jaxrl_par.stream import Metrics as Metrics
from jaxrl_par.stream import TimeStep as TimeStep
from jaxrl_par.stream import Trajectory as Trajectory

# Names that make signatures read; each algorithm decides what is behind them.
Params = Carry = Obs = Action = Batch = Grads = EnvState = PyTree
PRNGKey = Key[Array, ""]
State = Any
"""What an agent learns: a NamedTuple of arrays."""


class DistillationBatch(NamedTuple):
    """What a teacher makes of T rows of B environments that its student acted in."""

    steps: TimeStep
    """[T, B, ...]"""
    carry: Carry
    """[B, ...], the student's memory before the first row."""
    policy: Any
    """The teacher's distributions of the action, leaves [T, B, ...]."""
    values: Float[Array, "T B"]
    """What the teacher expects from here on."""


class Preferences(NamedTuple):
    """What an agent makes of B observations, for whoever learns from it."""

    actions: Float[Array, "B A"]
    """Logits of its policy, or values of all actions; -inf where one is impossible."""
    features: Float[Array, "B D"]
    """What the layer reads that makes them."""


class Prediction(NamedTuple):
    """What a model expects of an action in each of B observations."""

    obs: Obs
    """[B, ...], the next observation."""
    reward: Float[Array, " B"]
    end: Float[Array, " B"]
    """The probability that it terminates the episode."""
    doubt: Float[Array, " B"]
    """How much members of the model disagree, in standard deviations of what changes
    from one observation to the next; 0 where there is no telling."""


class TaskObs(NamedTuple):
    """What one of several tasks shows, in arrays that are as large for all."""

    obs: Any
    """[*T, B, ...], the task's own, with zeros in the channels that it lacks; in a
    spec, as the others, that of an array."""
    task: Any
    """[*T, B], which one it is."""
    allowed: Any
    """[*T, B, A], the actions that it has."""

    def own(self, spec: Box) -> Array:
        """What the task shows where it is alone."""
        return self.obs[..., : spec.shape[-1]].astype(spec.dtype)


class Info(NamedTuple):
    """What a gradient computation reports besides the gradient."""

    metrics: Metrics
    """Averaged over devices, then logged."""
    priorities: Float[Array, " B"] | None = None
    """New priorities of the sampled items, for prioritised replay."""


class Count(NamedTuple):
    """A counter that int32 cannot hold: `millions` * 10**6 + `units`, up to 2 * 10**15.

    A single int32 wraps after 2**31 environment steps: half an hour on one GPU.
    """

    millions: Int[Array, "..."]
    units: Int[Array, "..."]
    """Below 10**6."""

    @staticmethod
    def zero() -> "Count":
        return Count(jnp.int32(0), jnp.int32(0))

    def add(self, amount: Int[Array, "..."] | int) -> "Count":
        """The counter, advanced by 0 <= `amount` < 2**31 - 10**6."""
        units = self.units + jnp.asarray(amount, jnp.int32)
        return Count(self.millions + units // 1_000_000, units % 1_000_000)

    def __int__(self) -> int:
        return int(self.millions) * 1_000_000 + int(self.units)


class Unsaved(NamedTuple):
    """A part of a run that checkpoints leave out: a run that goes on from one has there
    what a new run has."""

    content: PyTree


ActFn = Callable[[Params, Carry, TimeStep, PRNGKey], tuple[Action, Carry, Extras]]


def as_is(state: State, trajectory: Trajectory, axis: Axis) -> Batch:
    """The trajectory: what an agent learns from that prepares nothing."""
    return trajectory


def nothing(state: State, trajectory: Trajectory, axis: Axis) -> State:
    """The state: what an agent is that learns by gradients alone."""
    return state


def as_acted(params: Params, carry: Carry, trajectory: Trajectory) -> Extras:
    """The extras that `act` left: what an agent adds that completes no unroll."""
    return trajectory.extras


def as_they_are(params: Params) -> Params:
    """The parameters: those of an agent that works nothing out before it acts."""
    return params


class Reference(NamedTuple):
    """What an agent is shown before it learns: observations of random play."""

    num_rows: int
    act: Callable[[Obs, PRNGKey], Action]
    """At random, within what is allowed; leaves [B, ...]."""
    keep: Callable[[State, Obs], State]
    """(state, observations with leaves [num_rows, ...]) -> state"""


class PlainPolicy(NamedTuple):
    """A policy in plain numbers and names, for who acts without JAX by `numpy_actor`.
    What it draws and leaves in the extras is that of `act`, up to rounding."""

    described: Callable[[], dict[str, Any]]
    """What it is, and what it reads: the config of `numpy_actor.Actor`, of which
    `networks.plain.described` has the observations and the action: leaves of a mask
    have the kind "mask", and say the part of the action that they are "of"; an action
    of several parts has the kind "parts", and a description of each by its name."""
    arrays: Callable[[Params], dict[str, Array]]
    """By name, those of the parameters that acting needs."""
    distribution: Callable[..., Any]
    """Parameters of the policy, by name, to what `act` leaves of it."""
    whole: bool = True
    """Whether actions and memory are all that `act` gives. Else a critic has a memory
    of its own, or actions are a NamedTuple, and it is for who is exported alone."""
    act: ActFn | None = None
    """That which it is. An agent that acts otherwise is something else."""
    log_prob: bool = False
    policy: bool = False
    """Whether `act` leaves these in the extras."""


class Agent(NamedTuple):
    """An algorithm as pure functions.

    An update is split into `grad` and `apply` because the ways of running in parallel
    differ in what happens between the two: a mean over devices, a queue, a delay.
    Nothing in an agent knows where it runs.
    """

    init: Callable[[PRNGKey, TimeStep], State]
    initial_carry: Callable[[int], Carry]
    """The memory of `act` before anything was seen, for so many environments."""
    act: ActFn
    """Samples an action for each environment."""
    grad: Callable[[State, Batch, PRNGKey, Axis], tuple[Grads, Info]]
    """The gradient of this instance's batch, not yet averaged over the axis: that is
    for agents that need means of the joint batch inside."""
    apply: Callable[[State, Grads, Metrics], State]
    """From a gradient of the joint batch, and the metrics that `grad` reported with it,
    averaged in the same way: for coefficients that adapt, as to a KL divergence."""
    greedy: ActFn
    """As `act`, but takes the mode of the policy: for evaluation."""
    prepare: Callable[[State, Trajectory, Axis], Batch] = as_is
    """From what was acted to what is learned, once before the gradients: advantages,
    baselines, temperatures, those of the joint batch along the axis. The batch's leaves
    are [N, ...], N rows or sequences, where an agent learns from minibatches."""
    observe: Callable[[State, Trajectory, Axis], State] = nothing
    """What is learned from data without a gradient, such as statistics of observations.
    It comes after the updates, once for each trajectory that was acted."""
    params: Callable[[State], Params] = attrgetter("params")
    """What acts."""
    settle: Callable[[Params], Params] = as_they_are
    """Parameters with all worked out that follows of them alone, once for the many
    steps in which they act. `act` takes both."""
    reference: Reference | None = None
    """What it is shown before it learns, by `loops.evolution`; None for nothing."""
    reduction: Literal["mean", "sum", "equal", "joint"] = "mean"
    """How gradients of parts of a batch combine to that of the whole: a mean if the
    loss is a mean over rows, a sum if it is a sum. Equal if each is that of the whole
    already, as `prepare` brought all that it takes: nothing is exchanged then. joint:
    equal, and of use at no parameters but those that it was computed at."""
    complete: Callable[[Params, Carry, Trajectory], Extras] = as_acted
    """The extras of an unroll, by whoever acted and with the parameters that did, once
    it knows how it goes on: such as first priorities. The carry is that after the last
    row. Leaves are [T, B, ...]."""
    specs: tuple[Specs, Specs] | None = None
    """Those of observations and actions that it was made for; None if it may be any."""
    preferences: (
        Callable[[Params, Carry, TimeStep], tuple[Preferences, Carry]] | None
    ) = None
    """What it thinks of all actions, in a step that it acts in; the memory after it is
    that of `act`. None where it cannot tell, as for actions that are no numbers of a
    list."""
    plain: PlainPolicy | None = None
    """What acts, without JAX: see `exportable` and `acts_plainly`."""

    @property
    def exportable(self) -> PlainPolicy | None:
        """`plain`, if that is how this agent acts."""
        ours = self.plain is not None and self.plain.act is self.act
        return self.plain if ours else None

    @property
    def acts_plainly(self) -> PlainPolicy | None:
        """`plain`, if it is all of how this agent acts, for who learns from it."""
        policy = self.exportable
        whole = policy is not None and policy.whole and self.complete is as_acted
        return policy if whole else None


class WorldModel(NamedTuple):
    """A model of an environment as pure functions, learned as an agent is."""

    init: Callable[[PRNGKey, TimeStep], State]
    grad: Callable[[State, Trajectory, PRNGKey, Axis], tuple[Grads, Info]]
    """Of windows from replay, whose rows say in `extras["members"]` who sees them."""
    apply: Callable[[State, Grads, Metrics], State]
    observe: Callable[[State, Trajectory, Axis], State]
    predict: Callable[[State, Obs, Action, PRNGKey], Prediction]
    """Not finite where no member of the model can tell."""
    members: Callable[[PRNGKey, int], Int[Array, "B E"]]
    """How often each member is to see each of B rows, drawn once in a row's life."""
    ready: Callable[[State], Bool[Array, ""]]
    """Before that, and where it errs too much, nobody should believe it."""


def same_actions(
    one: Action, other: Action, rows: Bool[Array, "*N"]
) -> Bool[Array, "*N"]:
    """Whether two actions [*N, ...] are equal in all of their parts; as many rows as
    the last argument has."""

    def leaf(x: Array, y: Array) -> Bool[Array, "*N"]:
        return jnp.all((x == y).reshape(*rows.shape, -1), axis=-1)

    parts = jax.tree.leaves(jax.tree.map(leaf, one, other))
    return reduce(jnp.logical_and, parts)


def example(specs: Specs, num_envs: int) -> PyTree:
    """Zeros [num_envs, ...] of the specs' shapes and dtypes."""
    return jax.tree.map(lambda x: jnp.zeros((num_envs, *x.shape), x.dtype), specs)
