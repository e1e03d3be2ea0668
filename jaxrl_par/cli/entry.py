"""Where a script begins: the command line, JAX's settings, and errors as sentences."""

import atexit
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jax

from jaxrl_par.cli.args import Args
from jaxrl_par.cli.config import parse
from jaxrl_par.cli.fields import Config
from jaxrl_par.errors import RefusedError
from jaxrl_par.hosts.config import HostsConfig
from jaxrl_par.hosts.world import join, parted
from jaxrl_par.kept import cache_folder
from jaxrl_par.training.comparison import leaves, to_json
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.interrupts import exits, ignore_signals
from jaxrl_par.training.output import lasting_output
from jaxrl_par.training.provenance import versions
from jaxrl_par.training.words import command_line

_SMALL_PRODUCT = 2**24  # multiplications; above, a second thread helps
_SCHEDULER = "xla_cpu_enable_concurrency_optimized_scheduler"
_DEVICES = "xla_force_host_platform_device_count"
_MOST_FORCED = 64  # devices of a CPU, unless the user asks XLA for more


def main(
    run: Callable[[Config], object],
    config: type[Config],
    argv: Sequence[str] | None = None,
    program: str | None = None,
    about: str = "",
) -> None:
    """Runs anything with the config of the command line.

    Args:
      argv, program, about: as for `parse`.

    Raises:
      SystemExit: code 2 if the command line is wrong, 1 if training cannot go on; the
        error was printed. As `Interrupted`, one of `exit_codes.EXIT_CODES` after a
        signal, such as 75 after SIGTERM and 130 after Ctrl-C.
    """
    with parted(), lasting_output(), sentences(), exits():
        configure_jax()
        args = parse(config, argv, program, about)
        if isinstance(args, Args):
            force_devices(args)
            choose_threads(args)
            if args.topology == "threads" and args.num_devices == 1:
                compute_in_place()
            join(args.hosts, alike(args))
        run(args)
    # While Python ends, with the code of a run that is complete.
    atexit.register(ignore_signals)


def alike(args: Args) -> dict[str, Any]:
    """What must be the same in all processes of a run, by dotted name."""
    settings = to_json(replace(args, hosts=HostsConfig()))
    libraries = {f"version of {name}": x for name, x in versions().items()}
    return libraries | dict(leaves(settings))


@contextmanager
def sentences() -> Iterator[None]:
    """What a command does within it, it says in the words of a command line.

    Raises:
      SystemExit: code 1 after an error was printed that a user can do something about.
    """
    with command_line():
        try:
            yield
        except (TrainingError, RefusedError) as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from error


def configure_jax() -> None:
    """Sets what a script wants of JAX, before a device is used.

    Compiled programs are kept in `~/.cache/jaxrl_par`, or where
    JAX_COMPILATION_CACHE_DIR says; nowhere if the user has no home. On CPU a scheduler
    is turned off that may deadlock in vmapped training. What the user has set stays.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _SCHEDULER not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_SCHEDULER}=false".strip()
    if not jax.config.values["jax_compilation_cache_dir"] and (cache := cache_folder()):
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def compute_in_place() -> None:
    """On CPU each thread computes itself what it calls: for actors beside a learner.

    Otherwise XLA hands programs to a thread of its own, where an action waits for an
    update (`benchmarks/apex.py`). What the user has set by
    JAX_CPU_ENABLE_ASYNC_DISPATCH stays.
    """
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        jax.config.update("jax_cpu_enable_async_dispatch", False)


def choose_threads(args: Args) -> None:
    """Says to XLA how many threads to compute with on CPU, before it starts.

    `args.xla_threads`, or where that is 0: one for a single program of small matrix
    products, else all. XLA's pool takes part in such a program in some calls and not in
    others, and costs processor time without making it faster (`benchmarks/pairs.py`).
    What the user has set by NPROC stays, and accelerators are left alone.
    """
    pure = args.topology in ("compiled", "delayed", "gossip")
    alone = pure and args.num_devices == 1
    small = _is_on_cpu() and alone and args.largest_product() <= _SMALL_PRODUCT
    if threads := args.xla_threads or int(small):
        os.environ.setdefault("NPROC", str(threads))


def force_devices(args: Args) -> None:
    """Makes XLA show a CPU as `num_devices` devices, before it starts.

    They share its processors: several small programs compute faster than one of several
    threads (`benchmarks/throughput.py --num-devices`). In several processes each has
    its share. What the user has set in XLA_FLAGS stays, and accelerators are left
    alone.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    here, rest = divmod(args.num_devices, args.hosts.num_processes or 1)
    countable = not rest and 1 < here <= _MOST_FORCED and not args.hosts.detect
    if countable and _is_on_cpu() and _DEVICES not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_DEVICES}={here}".strip()


def _is_on_cpu() -> bool:
    accelerators = importlib.metadata.entry_points(group="jax_plugins")
    return os.environ.get("JAX_PLATFORMS") == "cpu" or not accelerators
