"""Experiments from the command line: arguments, entry point, evaluation, studies."""

from jaxrl_par.cli.asynchronous import AsyncArgs
from jaxrl_par.cli.config import ConfigError, Flat, load, parse
from jaxrl_par.cli.entry import (
    configure_jax,
    environment_problems,
    experiment,
    host_experiment,
    main,
)
from jaxrl_par.cli.on_policy import OnPolicyArgs
from jaxrl_par.cli.studies import kept_cases, machine
from jaxrl_par.cli.threaded import ThreadsArgs

__all__ = [
    "AsyncArgs",
    "ConfigError",
    "Flat",
    "OnPolicyArgs",
    "ThreadsArgs",
    "configure_jax",
    "environment_problems",
    "experiment",
    "host_experiment",
    "kept_cases",
    "load",
    "machine",
    "main",
    "parse",
]
