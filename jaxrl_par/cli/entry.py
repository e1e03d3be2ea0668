"""Where a script begins: the command line, JAX's settings, and errors as sentences."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import jax

from jaxrl_par.cli.args import Args
from jaxrl_par.cli.config import Config, parse
from jaxrl_par.cli.place import MakeAgent, compose
from jaxrl_par.cli.run import train
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.interrupts import exits

_SCHEDULER = "xla_cpu_enable_concurrency_optimized_scheduler"


def experiment(make_agent: MakeAgent, config: type[Args]) -> None:
    """Composes what the command line asks for, and trains it. Raises as `main`."""
    main(lambda args: train(args, compose(args, make_agent)), config)


def main(run: Callable[[Config], object], config: type[Config]) -> None:
    """Runs anything with the config of the command line.

    Raises:
      SystemExit: code 2 if the command line is wrong, 1 if training cannot go on; the
        error was printed. As `Interrupted`, 75 after SIGTERM and 130 after Ctrl-C.
    """
    configure_jax()
    args = parse(config)
    try:
        with exits():
            run(args)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def configure_jax() -> None:
    """Sets what a script wants of JAX, before a device is used.

    Compiled programs are kept in `~/.cache/jaxrl_par`, or where
    JAX_COMPILATION_CACHE_DIR says. On CPU a scheduler is turned off that may deadlock
    in vmapped training. What the user has set stays.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _SCHEDULER not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_SCHEDULER}=false".strip()
    if not jax.config.values["jax_compilation_cache_dir"]:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(cache / "jaxrl_par"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
