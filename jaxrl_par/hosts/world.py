"""One run in several processes: how they come together, and how they part."""

import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import jax

from jaxrl_par.errors import RefusedError
from jaxrl_par.hosts.config import HostsConfig
from jaxrl_par.hosts.roll import call_roll, resolved
from jaxrl_par.hosts.watch import Watch

_SLOWER = 10
"""How much later than our own watch, which ends with a sentence, jax's is to act."""

_NEWS = 3.0
"""Seconds in which it is known that a process was lost."""
_PARTING = 60  # seconds for jax's shutdown, when all processes have said that they end


class _World:
    """The other processes of this one, of which there is one set, as in jax."""

    watch: Watch | None = None
    stopping = False
    """All have agreed to stop."""


def join(config: HostsConfig, about: Mapping[str, Any]) -> None:
    """Waits for the other processes, and makes their devices one world for jax.

    Before a device is used. Afterwards the process ends with code 75 as soon as another
    one is lost, and with `parted` around it.

    Args:
      about: what must be the same in all processes, as plain JSON by dotted name.

    Raises:
      RefusedError: as `call_roll`, or nothing was detected, or jax was used before.
    """
    if not config.is_given:
        return
    config, local_devices = detected(config)
    if config.num_processes == 1:
        return
    if jax.distributed.is_initialized():
        raise RefusedError("hosts: this process is one of several already")
    peers = call_roll(config, about)
    watch = Watch(peers, config.silence, config.patience)
    watch.start()
    _World.watch = watch
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM for itself; ours is answered at a chunk's border.
    jax.config.update("jax_enable_preemption_service", False)
    host, port = resolved(config)[1]
    bound = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    jax.distributed.initialize(
        bound,
        config.num_processes,
        config.process_id,
        local_devices,
        coordinator_bind_address=bound,
        cluster_detection_method="deactivate",
        initialization_timeout=int(config.join_seconds) + 1,
        heartbeat_timeout_seconds=int(_SLOWER * config.silence),
        shutdown_timeout_seconds=_PARTING,
    )
    if config.process_id:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - process 0 speaks


def detected(config: HostsConfig) -> tuple[HostsConfig, Sequence[int] | None]:
    """The config with what jax finds in this environment, and which devices of the
    machine are this process's, where that is known.

    Raises:
      RefusedError: it finds nothing.
    """
    if not config.detect:
        return config, None
    # jax detects only while it initializes, which would be without a roll call.
    from jax._src.clusters import ClusterEnv

    found = ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, int(config.join_seconds)
    )
    address, num_processes, process_id, local_devices = found
    if None in (address, num_processes, process_id):
        raise RefusedError(
            "hosts.detect: this is no cluster that jax knows (SLURM, Kubernetes, Open"
            " MPI): give coordinator, num_processes and process_id"
        )
    names = {"coordinator": address, "num_processes": num_processes}
    made = HostsConfig(
        **names,
        process_id=process_id,
        join_seconds=config.join_seconds,
        silence=config.silence,
        patience=config.patience,
    )
    return made, local_devices


@contextmanager
def parted() -> Iterator[None]:
    """Within it a process joins others, and at the end of it leaves them.

    Together, if all are done or have agreed to stop. After an error it says so and ends
    at once: in jax's shutdown it would wait for others, who wait for it.
    """
    try:
        yield
    except BaseException as error:
        if _World.watch is None:
            raise
        if not _World.stopping:
            _fail(_World.watch, error)
        _leave(_World.watch)
        raise
    if _World.watch is not None:
        _leave(_World.watch)


def watch() -> Watch | None:
    """That of this process, None for a process alone."""
    return _World.watch


def stop() -> None:
    """All processes know that all of them stop now."""
    _World.stopping = True


def _leave(watch: Watch) -> None:
    watch.wait_for_all()
    jax.distributed.shutdown()
    watch.close()
    _World.watch = None


def _fail(watch: Watch, error: BaseException) -> NoReturn:
    code = None
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
    else:
        # The network tells of a lost process, too, and `watch` knows of it.
        time.sleep(_NEWS)
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    watch.fail(code)
