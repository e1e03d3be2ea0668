"""Environments as optimal control knows them: a vector of state, a cost, derivatives.

An environment with gymnax's interface keeps its state in a pytree. What changes in it
from step to step, is a real number and is read again is the state x of control; all
else, such as a goal or where a door hangs, stays in an episode and is its scene. The
cost is minus the reward.

Planning needs a cost with second derivatives. Dynamics may be anything: they are only
sampled, if they are not asked for.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var
from jaxtyping import Array, Float

from jaxrl_par.envs import gymnax
from jaxrl_par.envs.raw import as_written, strong_dtypes
from jaxrl_par.errors import RefusedError
from jaxrl_par.types import Box, Obs, PRNGKey, Spec, Specs

_NUM_PROBES = 4
"""States and actions around which derivatives are looked at."""


class Control(NamedTuple):
    """One environment, to be vmapped over."""

    name: str
    specs: tuple[Specs, Spec]
    state_size: int
    num_actions: int
    num_steps: int
    """Of an episode. It ends where this many are done, and nowhere else."""
    start: Callable[[PRNGKey], tuple[Any, Obs]]
    """A first state, as the environment has it, and what is seen of it."""
    vector: Callable[[Any], Float[Array, " D"]]
    """x, from the environment's state."""
    with_vector: Callable[[Any, Array], Any]
    """The environment's state, with another x."""
    step: Callable[[Any, Array, PRNGKey], tuple[Any, Obs, Float[Array, ""]]]
    """(state, action, key) -> (state, what is seen, cost). Actions are clipped."""
    cost: Callable[[Any, Array, Array], Float[Array, ""]]
    """(scene, x, action) -> cost. It grows with the square of how far an action is
    beyond its bounds, in units of them: there the environment does no more."""
    moved: Callable[[Any, Array, Array], Float[Array, " D"]]
    """(scene, x, action) -> the next x, with the same noise each time: for who plans
    with it. gymnax's own keep derivatives out of it, if they are not asked for them
    (`with_transition_gradients`)."""


@as_written
def controlled(
    env: Any, name: str | None = None, num_steps: int | None = None
) -> Control:
    """The environment as a problem of control.

    Args:
      env: an object with gymnax's interface.
      num_steps: of an episode, by default as many as the environment has.

    Raises:
      RefusedError: actions are no vector of real numbers, nothing in its state is a
        real number that changes, its reward has no useful second derivatives, or its
        episodes are shorter.
    """
    params = env.default_params
    name = str(env.name) if name is None else name
    made = gymnax.from_gymnax(env, 1, params, name)
    spec = _refuse_actions(name, made.action_spec)
    num_steps = _refuse_length(name, int(params.max_steps_in_episode), num_steps)
    low, high = (np.broadcast_to(x, spec.shape) for x in spec.inner)
    width = np.where(np.isfinite(high - low), 0.5 * (high - low), 1.0)
    strong, key = strong_dtypes(gymnax.raw(env, params)), jax.random.key(0)

    def stepped(state, action, key):
        obs, state, reward, *_ = env.step_env(key, state, action, params)
        state, obs = strong((state, obs))
        return obs, state, reward.astype(jnp.float32)

    def within(action: Array) -> Array:
        return jnp.clip(action, jnp.asarray(low), jnp.asarray(high))

    @as_written
    def start(key: PRNGKey) -> tuple[Any, Obs]:
        obs, state = env.reset_env(key, params)
        return strong((state, obs))

    @as_written
    def step(state: Any, action: Array, key: PRNGKey):
        obs, state, reward = stepped(state, within(action), key)
        return state, obs, -reward

    fresh, _ = jax.eval_shape(start, key)
    vector = _Vector(_moving(stepped, fresh, jnp.zeros(spec.shape)), fresh)
    if not vector.sizes:
        raise RefusedError(
            f"control needs a state with real numbers that change, and {name} has none"
        )

    @as_written
    def cost(scene: Any, x: Array, action: Array) -> Float[Array, ""]:
        _, _, reward = stepped(vector.put(scene, x), within(action), key)
        beyond = (action - within(action)) / jnp.asarray(width)
        return jnp.sum(jnp.square(beyond)) - reward

    @as_written
    def moved(scene: Any, x: Array, action: Array) -> Float[Array, " D"]:
        _, state, _ = stepped(vector.put(scene, x), within(action), key)
        return vector.of(state)

    control = Control(
        name, made.specs, sum(vector.sizes), spec.shape[0], num_steps,
        start, vector.of, vector.put, step, cost, moved,
    )  # fmt: skip
    _refuse_cost(control)
    return control


class _Vector:
    """The leaves of a state that are in x, one after the other.

    Args:
      chosen: for each leaf, whether it is.
      state: or its shapes.
    """

    def __init__(self, chosen: list[bool], state: Any):
        leaves = zip(jax.tree.leaves(state), chosen, strict=True)
        self._chosen = chosen
        self.sizes = [int(np.prod(x.shape)) for x, used in leaves if used]

    def of(self, state: Any) -> Float[Array, " D"]:
        """x"""
        leaves = zip(jax.tree.leaves(state), self._chosen, strict=True)
        return jnp.concatenate([x.reshape(-1) for x, used in leaves if used])

    def put(self, state: Any, x: Float[Array, " D"]) -> Any:
        """The state, with another x."""
        parts = iter(jnp.split(x, np.cumsum(self.sizes)[:-1].tolist()))
        leaves, tree = jax.tree.flatten(state)
        given = [
            next(parts).reshape(leaf.shape) if used else leaf
            for leaf, used in zip(leaves, self._chosen, strict=True)
        ]
        return tree.unflatten(given)


def _refuse_actions(name: str, spec: Spec) -> Box:
    if isinstance(spec, Box) and len(spec.shape) == 1:
        return spec
    raise RefusedError(
        "control needs actions that are vectors of real numbers, and those of"
        f" {name} are {spec}"
    )


def _refuse_length(name: str, limit: int, asked: int | None) -> int:
    """The steps of an episode."""
    if asked is not None and not 1 <= asked <= limit:
        raise RefusedError(
            f"an episode of {name} has 1 to {limit} steps, asked for {asked}"
        )
    return limit if asked is None else asked


def _moving(step: Callable, state: Any, action: Array) -> list[bool]:
    """For each leaf of the state, whether it is a part of x: real numbers that a step
    changes and reads. The counter that gymnax calls time is none."""
    traced = jax.make_jaxpr(lambda s: step(s, action, jax.random.key(0)))(state).jaxpr
    shapes = jax.eval_shape(lambda s: step(s, action, jax.random.key(0)), state)
    before = len(jax.tree.leaves(shapes[0]))
    leaves = jax.tree.leaves_with_path(state)
    after = traced.outvars[before : before + len(leaves)]
    passed = {x.outvars[0]: x.invars[0] for x in traced.eqns if _passes_on(x)}
    read = {
        variable
        for equation in traced.eqns
        for variable in equation.invars
        if isinstance(variable, Var) and not _passes_on(equation)
    }

    def is_own(leaf: Any, name: str, now: Var, then: Any) -> bool:
        while then in passed:
            then = passed[then]
        real = jnp.issubdtype(leaf.dtype, jnp.floating)
        return real and "time" not in name and now is not then and now in read

    return [
        is_own(leaf, jax.tree_util.keystr(path), now, then)
        for (path, leaf), now, then in zip(leaves, traced.invars, after, strict=True)
    ]


def _passes_on(equation: Any) -> bool:
    """Whether it changes no number, as what keeps gradients out of a transition."""
    return equation.primitive.name == "stop_gradient"


def _refuse_cost(control: Control) -> None:
    """Accepts a cost that has second derivatives where episodes begin, all of them
    finite, and depends on the state there.

    Raises:
      RefusedError: it has not.
    """

    def derivatives(key: PRNGKey):
        start_key, state_key, action_key = jax.random.split(key, 3)
        scene, _ = control.start(start_key)
        x = control.vector(scene)
        x = x + 0.01 * jax.random.normal(state_key, x.shape)
        action = 0.01 * jax.random.normal(action_key, (control.num_actions,))
        both = jnp.concatenate([x, action])

        def of(z):
            return control.cost(scene, z[: len(x)], z[len(x) :])

        return jax.grad(of)(both), jax.hessian(of)(both)

    keys = jax.random.split(jax.random.key(0), _NUM_PROBES)
    told = (
        f"guided policy search makes costs quadratic, and the reward of {control.name}"
    )
    try:
        slopes, curvatures = jax.jit(jax.vmap(derivatives))(keys)
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise RefusedError(
            f"{told} cannot be differentiated twice: {reason}"
        ) from error
    if not (np.isfinite(slopes).all() and np.isfinite(curvatures).all()):
        raise RefusedError(f"{told} has derivatives that are not finite")
    if not np.any(slopes[:, : control.state_size]):
        raise RefusedError(
            f"{told} does not depend on the state where episodes begin, as where it is"
            " paid at a goal alone: pay a distance"
        )
