"""iLQG: least cost in known dynamics, by linear-quadratic problems around a trajectory.

A backward pass in the coordinates of the nominal trajectory gives an offset k and a
gain K for each step. A forward pass with step size a does

    u = u_nominal + a k + K (x - x_nominal)

Feedback is whole whatever a is. The largest a of 1, 1/2, 1/4, ... is taken whose cost
falls by a share of what the quadratic predicts; a cost that is not finite is never
accepted. Where none is, more is added to Q_uu, and the trajectory stays.

Sources: Tassa et al. (2012), sections II-D to II-F; Todorov and Li (2005).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.algorithms.gps.lqr import (
    Dynamics,
    Quadratic,
    Solution,
    Value,
    backward,
)
from jaxrl_par.algorithms.gps.quadratic import CostFn
from jaxrl_par.guidance import Controllers

StepFn = Callable[[Any, Array, Array], Float[Array, " D"]]
"""(scene, state, action) -> the next state"""
FinalFn = Callable[[Any, Array], Float[Array, ""]]

SIZES = tuple(0.5**i for i in range(8))
"""Step sizes that are tried."""
_SHARE = 1e-4
"""Of the predicted fall, which the cost must fall by."""
_FACTOR, _FIRST, _MOST = 4.0, 1e-3, 1e6
"""By how much what is added to Q_uu grows, where it begins, and where it ends."""


class Problem(NamedTuple):
    """What is to be done."""

    step: StepFn
    cost: CostFn
    final: FinalFn
    """Cost of the last state."""
    scene: Any
    start: Float[Array, " D"]


class Trajectory(NamedTuple):
    """States and actions, and what they cost together."""

    states: Float[Array, "T+1 D"]
    actions: Float[Array, "T A"]
    cost: Float[Array, ""]


class Plan(NamedTuple):
    """Where iLQG is."""

    trajectory: Trajectory
    controllers: Controllers
    """In absolute coordinates: their mean is the trajectory where they are on it."""
    added: Float[Array, ""]
    indefinite: Int[Array, ""]
    """Q_uu that were not positive definite, of all backward passes."""


def nothing(scene: Any, state: Array) -> Float[Array, ""]:
    """The last state costs nothing."""
    return jnp.zeros((), state.dtype)


def rolled(problem: Problem, actions: Float[Array, "T A"]) -> Trajectory:
    """What these actions lead to."""
    still = jnp.zeros((*actions.shape, len(problem.start)))
    along = jnp.broadcast_to(problem.start[None], (len(actions), len(problem.start)))
    return forward(problem, along, actions, still, jnp.zeros_like(actions), 1.0)


def forward(
    problem: Problem,
    states: Float[Array, "T D"],
    actions: Float[Array, "T A"],
    gain: Float[Array, "T A D"],
    offset: Float[Array, "T A"],
    size: Float[Array, ""] | float,
) -> Trajectory:
    """What comes of a step of that size around a nominal trajectory."""

    def step(now, inputs):
        state, action, gain, offset = inputs
        action = action + size * offset + gain @ (now - state)
        cost = problem.cost(problem.scene, now, action)
        return problem.step(problem.scene, now, action), (now, action, cost)

    last, (before, chosen, costs) = jax.lax.scan(
        step, problem.start, (states, actions, gain, offset)
    )
    total = jnp.sum(costs) + problem.final(problem.scene, last)
    return Trajectory(jnp.concatenate([before, last[None]]), chosen, total)


def relative(
    problem: Problem, trajectory: Trajectory, added: Float[Array, ""] | float = 0.0
) -> Solution:
    """The backward pass around a trajectory, in coordinates in which it is 0."""
    states, actions = trajectory.states[:-1], trajectory.actions
    size = states.shape[1]
    points = jnp.concatenate([states, actions], axis=1)

    def cost(z):
        return problem.cost(problem.scene, z[:size], z[size:])

    def step(z):
        return problem.step(problem.scene, z[:size], z[size:])

    matrix = jax.vmap(jax.jacfwd(step))(points)
    quadratic = Quadratic(*(jax.vmap(f(cost))(points) for f in (jax.hessian, jax.grad)))
    noise = jnp.zeros((len(points), size, size))
    dynamics = Dynamics(matrix, jnp.zeros_like(states), noise)
    last = trajectory.states[-1]
    ends = jax.hessian(problem.final, 1), jax.grad(problem.final, 1)
    final = Value(*(f(problem.scene, last) for f in ends))
    return backward(quadratic, dynamics, final, added)


def improved(problem: Problem, plan: Plan) -> Plan:
    """After one iteration."""
    trajectory = plan.trajectory
    solution = relative(problem, trajectory, plan.added)
    gain, offset, noise = solution.controllers
    sizes = jnp.asarray(SIZES)
    nominal = trajectory.states[:-1], trajectory.actions, gain, offset
    tried = jax.vmap(lambda a: forward(problem, *nominal, a))(sizes)
    predicted = -(sizes * solution.linear + sizes**2 * solution.squared)
    good = acceptable(trajectory.cost, tried.cost, predicted)
    best, any_good = jnp.argmax(good), jnp.any(good)
    taken = jax.tree.map(
        lambda x, y: jnp.where(any_good, x[best], y), tried, trajectory
    )
    grown = jnp.clip(plan.added * _FACTOR, _FIRST, _MOST)
    less = jnp.where(plan.added > _FIRST, plan.added / _FACTOR, 0.0)
    around = taken.actions - jnp.einsum("tad,td->ta", gain, taken.states[:-1])
    controllers = Controllers(gain, around, noise)
    kept = jax.tree.map(
        lambda x, y: jnp.where(any_good, x, y), controllers, plan.controllers
    )
    added = jnp.where(any_good, less, grown)
    return Plan(taken, kept, added, plan.indefinite + solution.indefinite)


def acceptable(
    cost: Float[Array, ""], tried: Float[Array, " S"], predicted: Float[Array, " S"]
) -> Bool[Array, " S"]:
    """Which costs fell as far as is asked for. One that is NaN did not."""
    fall = cost - tried
    return jnp.isfinite(tried) & (fall > 0.0) & (fall >= _SHARE * predicted)


def ilqg(problem: Problem, actions: Float[Array, "T A"], num_iterations: int) -> Plan:
    """The plan after so many iterations, from the first actions on."""
    trajectory = rolled(problem, actions)
    length, number = actions.shape
    still = jnp.zeros((length, number, len(problem.start)))
    noise = jnp.broadcast_to(jnp.eye(number)[None], (length, number, number))
    controllers = Controllers(still, actions, noise)
    plan = Plan(trajectory, controllers, jnp.float32(0.0), jnp.int32(0))

    def step(_, plan: Plan) -> Plan:
        return improved(problem, plan)

    return jax.lax.fori_loop(0, num_iterations, step, plan)
