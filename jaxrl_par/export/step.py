"""What an exported actor computes in a step, in JAX and as StableHLO."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxrl_par import trees
from jaxrl_par.export.files import ExportError
from jaxrl_par.networks import Network, NetworkConfig, actor_critic
from jaxrl_par.training.comparison import named
from jaxrl_par.types import Action, Box, Carry, Spec, Specs, TimeStep, example

PLATFORMS = ("cpu", "cuda", "tpu")

Arrays = dict[str, np.ndarray]


class Acting(NamedTuple):
    """The network to export, and what it reads."""

    config: NetworkConfig
    network: Network
    observation_spec: Specs
    action_spec: Specs
    example: TimeStep
    """A step of one environment."""

    @property
    def parts(self) -> tuple[Specs, Specs, NetworkConfig]:
        """What it is made of."""
        return self.observation_spec, self.action_spec, self.config

    @property
    def halves(self) -> bool:
        """Its carry is a pair, and only the first one is the policy's."""
        return self.config.memory != "none" and not self.config.shared

    @property
    def parameters(self) -> Any:
        """Their shapes."""
        return jax.eval_shape(self.network.init, jax.random.key(0), self.example)

    @property
    def carry(self) -> Carry:
        """Memory of the policy in one environment, leaves [1, ...]."""
        carry = self.network.initial_carry(1)
        return carry[0] if self.halves else carry


def acting(
    network: NetworkConfig, observation_spec: Specs, action_spec: Specs
) -> Acting:
    """That of these observations and actions.

    Raises:
      ValueError: the config does not fit the specs.
    """
    built = actor_critic(observation_spec, action_spec, network)
    none = jnp.zeros(1, bool)
    first = TimeStep(example(observation_spec, 1), first=none, last=none)
    return Acting(network, built, observation_spec, action_spec, first)


def step_of(actor: Acting, config: Mapping[str, Any]) -> Callable:
    """(arrays, observations, first, carry) -> (actions, policy, carry), of plain lists
    but for the policy's parameters, which have names.

    JAX would ask for a name of every NamedTuple in the signature, wherever it is read.
    """
    trees = (actor.parameters, actor.carry, actor.example.obs)
    params_tree, carry_tree, obs_tree = map(jax.tree.structure, trees)
    expected = named(actor.parameters).items()

    def step(arrays, obs, first, carry):
        # Nothing that is returned depends on the parameters that are not there.
        params = params_tree.unflatten(
            arrays.get(name, jnp.zeros(x.shape, x.dtype)) for name, x in expected
        )
        obs = [_normalized(arrays, i, x, config) for i, x in enumerate(obs)]
        row = TimeStep(obs_tree.unflatten(obs), first, last=jnp.zeros_like(first))
        memory = carry_tree.unflatten(carry)
        memory = (memory, memory) if actor.halves else memory
        (policy, _), memory = actor.network.apply(params, memory, row)
        memory = memory[0] if actor.halves else memory
        action = jax.tree.leaves(_taken(actor.action_spec, policy.mode()))
        return action, named(policy), jax.tree.leaves(memory)

    return step


def _taken(specs: Specs, action: Action) -> Action:
    """As the environment takes it: the nearest one within the bounds, as a robot may
    have nobody else to clip it, and integers from where its own begin."""

    def part(spec: Spec, x: Array) -> Array:
        if not isinstance(spec, Box):
            return x + jnp.broadcast_to(jnp.asarray(spec.start, x.dtype), x.shape)
        low, high = (jnp.broadcast_to(y, x.shape) for y in spec.inner)
        return jnp.clip(x, low, high).astype(x.dtype)

    return trees.map_leaves(part, specs, action)


def _normalized(arrays, index: int, x: Array, config: Mapping[str, Any]) -> Array:
    """The input as `algorithms.normalize` shows it."""
    if f"statistics.mean.{index}" not in arrays:
        return x
    mean, variance = (
        jnp.broadcast_to(arrays[f"statistics.{n}.{index}"], x.shape)
        for n in ("mean", "variance")
    )
    clip = config["normalization"]["clip"]
    return jnp.clip((x - mean) * jax.lax.rsqrt(variance + 1e-8), -clip, clip)


def lowered(step: Callable, arrays: Arrays, actor: Acting, batch: int | None) -> bytes:
    """StableHLO of the step, for one or any number of environments."""
    size = jax.export.symbolic_shape("batch")[0] if batch is None else batch

    def rows(tree: Any) -> list[jax.ShapeDtypeStruct]:
        return [
            jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
            for x in jax.tree.leaves(tree)
        ]

    shapes = {n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in arrays.items()}
    (first,) = rows(actor.example.first)
    export = jax.export.export(jax.jit(step), platforms=PLATFORMS)
    try:
        exported = export(shapes, rows(actor.example.obs), first, rows(actor.carry))
    except jax.errors.InconclusiveDimensionOperation as error:
        raise ExportError(
            f"memory = {actor.config.memory} is not computed alike for all numbers of"
            " environments: say with batch_sizes for which to export it"
        ) from error
    return bytes(exported.serialize())
