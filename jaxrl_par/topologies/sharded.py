"""Synchronous data parallelism: one program on every device of a mesh.

The learner is replicated, and each device keeps its own environments and data.
Devices meet only where the program averages over the axis, which is at the gradient.
In several processes (`--hosts`, or `jax.distributed.initialize()`) the mesh spans the
devices of all of them, and nothing here changes.
"""

from functools import partial
from typing import Any

import jax
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError, lacking, refuse_any
from jaxrl_par.loops import Program, Run
from jaxrl_par.types import Metrics, PRNGKey


def data_mesh(num_devices: int | None = None, axis: Axis = Axis("data")) -> Mesh:
    """A one-dimensional mesh over the first `num_devices` devices, by default all.

    Raises:
      ValueError: there are fewer devices than that, or they leave a process without.
    """
    devices = jax.devices()[:num_devices]
    if num_devices is not None and num_devices > len(devices):
        if jax.process_count() > 1:
            each = [sum(x.process_index == i for x in devices) for i in _processes()]
            raise RefusedError(
                f"asked for {num_devices} devices, found {len(devices)}: processes 0"
                f" to {len(each) - 1} have {', '.join(map(str, each))}"
            )
        raise RefusedError(
            f"asked for {num_devices} devices, found {len(devices)}; on a CPU, set"
            f" XLA_FLAGS=--xla_force_host_platform_device_count={num_devices}"
        )
    if without := sorted(set(_processes()) - {x.process_index for x in devices}):
        raise RefusedError(
            f"{len(devices)} devices leave process {without[0]} without one: it takes"
            f" {len(jax.devices())} to use all"
        )
    return Mesh(devices, (axis.name,), axis_types=(AxisType.Auto,))


def _processes() -> range:
    return range(jax.process_count())


def share(num_envs: int, num_devices: int) -> int:
    """Environments of each device.

    Raises:
      ValueError: `num_devices` does not divide `num_envs`.
    """
    if num_devices < 1 or num_envs % num_devices:
        raise RefusedError(
            f"num_envs = {num_envs} cannot be shared evenly by num_devices ="
            f" {num_devices}; {num_envs - num_envs % max(num_devices, 1)} or"
            f" {num_envs + -num_envs % max(num_devices, 1)} could"
        )
    return num_envs // num_devices


def sharded(program: Program, mesh: Mesh, axis: Axis = Axis("data")) -> Program:
    """Runs `program` on every device along the axis.

    Args:
      program: built with the same `axis`. It is one device's view: its
        environments are that device's share, and `Run.local` has no device axis.

    Returns:
      A program whose `Run.local` has a leading device axis on every leaf. All else of
      the run, and the metrics, are replicated.

    Raises:
      RefusedError: either is something else.
    """
    refuse_any(
        lacking("a Program, as compiled returns it", "init", "step", program=program)
        + lacking("a Mesh, as data_mesh returns it", "axis_names", mesh=mesh)
    )
    run_spec: Any = Run(P(), P(axis.name), P(), P(), P())  # pyright: ignore

    def init(key: PRNGKey) -> Run:
        return _local_at(program.init(key), None)

    def step(run: Run) -> tuple[Run, Metrics]:
        run, metrics = program.step(_local_at(run, 0))
        return _local_at(run, None), metrics

    # With check_vma=True, jax.grad sums the gradient of replicated parameters over the
    # devices by itself, and a mean after it is too large by their number. `update` in
    # `loops` would notice, other programs need not.
    on_mesh = partial(jax.shard_map, mesh=mesh, check_vma=False)
    return Program(
        init=on_mesh(init, in_specs=P(), out_specs=run_spec),
        step=on_mesh(step, in_specs=(run_spec,), out_specs=(run_spec, P())),
    )


def _local_at(run: Run, index: int | None) -> Run:
    """Without (0) or with (None) the axis that joins what each device has."""
    return run._replace(local=jax.tree.map(lambda x: x[index], run.local))
