"""Experiments from the command line: one config, entry points, placing, studies."""

from jaxrl_par.cli.args import Args
from jaxrl_par.cli.config import parse
from jaxrl_par.cli.entry import configure_jax, main, sentences
from jaxrl_par.cli.epochs import EpochArgs
from jaxrl_par.cli.experiment import Experiment
from jaxrl_par.cli.fields import Flat
from jaxrl_par.cli.files import ConfigError, load
from jaxrl_par.cli.launch import launch
from jaxrl_par.cli.place import compose, place
from jaxrl_par.cli.problems import environment_problems
from jaxrl_par.cli.readers import Topology
from jaxrl_par.cli.run import draw, in_a_path, train
from jaxrl_par.cli.solving import until_solved
from jaxrl_par.cli.studies import (
    at_end,
    draw_seeds,
    first_above,
    kept_cases,
    machine,
    seed_curves,
    write_study,
)

__all__ = [
    "Args",
    "ConfigError",
    "EpochArgs",
    "Experiment",
    "Flat",
    "Topology",
    "at_end",
    "compose",
    "configure_jax",
    "draw",
    "draw_seeds",
    "environment_problems",
    "first_above",
    "in_a_path",
    "kept_cases",
    "launch",
    "load",
    "machine",
    "main",
    "parse",
    "place",
    "seed_curves",
    "sentences",
    "train",
    "until_solved",
    "write_study",
]
