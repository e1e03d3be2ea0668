"""The records that the parts of jaxrl_par exchange. It imports none of them.

Axis letters of all shapes: T time, B environments or sequences, A actions, D features,
P population. Trajectories are time-major, [T, B, ...], because `jax.lax.scan` writes
and reads the first axis.

Two kinds of record, and the kind says whether JAX traces it: a `NamedTuple` is a pytree
of arrays (or of functions), a frozen dataclass is static and never a pytree.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jaxrl_par.axis import Axis
from jaxrl_par.specs import Box as Box
from jaxrl_par.specs import Discrete as Discrete
from jaxrl_par.specs import Spec, Specs

# Names that make signatures read; each algorithm decides what is behind them.
Params = Carry = Obs = Action = Batch = Grads = EnvState = PyTree
Extras = dict[str, PyTree]
PRNGKey = Key[Array, ""]
State = Any
"""What an agent learns: a NamedTuple of arrays."""


class TimeStep(NamedTuple):
    """What B environments show, leaves [B, ...], or [T, B, ...] over time."""

    obs: Obs
    first: Bool[Array, "*T B"]
    """`obs` starts an episode: memory is cleared before it is read."""
    last: Bool[Array, "*T B"]
    """`obs` ended an episode, by termination or time limit. The next one is `first`."""


class Trajectory(NamedTuple):
    """T actions of B environments, between T+1 observations.

    Every observation of an episode appears once, the final one included. Rows whose
    step is `last` are no transitions: their action is ignored, their loss weighs 0.
    """

    steps: TimeStep
    """[T+1, B, ...]; the final row is there to bootstrap from."""
    action: Action
    reward: Float[Array, "T B"]
    """What `action` brought; 0 where `last`."""
    discount: Float[Array, "T B"]
    """0 where `action` terminated the episode or the step is `last`, else 1."""
    extras: Extras
    """What `Agent.act` leaves for the learner, such as log-probabilities."""
    carry: Carry
    """[B, ...], the agent's memory before the first row."""

    @property
    def num_lanes(self) -> int:
        """B: each lane is the stream of one environment."""
        return self.reward.shape[1]

    @property
    def rows(self) -> TimeStep:
        """[T, B, ...], the steps that were acted in: all but the final one."""
        return jax.tree.map(lambda x: x[:-1], self.steps)

    @property
    def env_steps(self) -> Int[Array, ""]:
        """Rows that are no `last`."""
        return jnp.sum(~self.rows.last, dtype=jnp.int32)

    def lanes(self, index: Int[Array, " N"]) -> "Trajectory":
        """Some of the lanes, [T, N, ...]."""
        return self.along_lanes(lambda axis, x: x[:, index] if axis else x[index])

    def lanes_first(self) -> "Trajectory":
        """Leaves [B, T, ...]: a lane is one item, as buffers keep them."""
        return self.along_lanes(lambda axis, x: jnp.swapaxes(x, 0, axis))

    def time_first(self) -> "Trajectory":
        """From `lanes_first` back to leaves [T, B, ...]."""
        return self.lanes_first()

    @staticmethod
    def join(
        trajectories: Sequence["Trajectory"],
        concatenate: Callable[..., Array] = jnp.concatenate,
    ) -> "Trajectory":
        """The lanes of all, one after the other."""
        first, *others = trajectories
        if not others:
            return first
        return first.along_lanes(lambda axis, *xs: concatenate(xs, axis), *others)

    def along_lanes(
        self, function: Callable[..., Any], *others: "Trajectory"
    ) -> "Trajectory":
        """`function(axis, leaf, *leaves of others)` of all leaves; their lanes are
        along `axis`, which is 0 for those of the carry and else 1."""
        everyone = (self, *others)
        carry = jax.tree.map(lambda *xs: function(0, *xs), *(x.carry for x in everyone))
        rows = (x._replace(carry=()) for x in everyone)
        rows = jax.tree.map(lambda *xs: function(1, *xs), *rows)
        return rows._replace(carry=carry)


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


class Mean(NamedTuple):
    """A mean in two parts, so that means over devices and updates stay exact."""

    total: Float[Array, ""]
    count: Float[Array, ""]


Metrics = dict[str, Float[Array | np.ndarray, "..."] | Mean]
"""By name: scalars, or [num_updates] where those of several updates are stacked."""


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
    reduction: Literal["mean", "sum", "equal", "joint"] = "mean"
    """How gradients of parts of a batch combine to that of the whole: a mean if the
    loss is a mean over rows, a sum if it is a sum. Equal if each is that of the whole
    already, as `prepare` brought all that it takes: nothing is exchanged then. joint:
    equal, and of use at no parameters but those that it was computed at."""
    complete: Callable[[Params, Carry, Trajectory], Extras] = as_acted
    """The extras of an unroll, by whoever acted and with the parameters that did, once
    it knows how it goes on: such as first priorities. The carry is that after the last
    row. Leaves are [T, B, ...]."""
    specs: tuple[Specs, Spec] | None = None
    """Those of observations and actions that it was made for; None if it may be any."""
    preferences: (
        Callable[[Params, Carry, TimeStep], tuple[Preferences, Carry]] | None
    ) = None
    """What it thinks of all actions, in a step that it acts in; the memory after it is
    that of `act`. None where it cannot tell, as for actions that are no numbers of a
    list."""


def example(specs: Specs, num_envs: int) -> PyTree:
    """Zeros [num_envs, ...] of the specs' shapes and dtypes."""
    return jax.tree.map(lambda x: jnp.zeros((num_envs, *x.shape), x.dtype), specs)
