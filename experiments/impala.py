"""IMPALA, on Breakout-MinAtar by default. Try `--help`."""

from jaxrl_par import cli
from jaxrl_par.presets.impala import EXPERIMENT

if __name__ == "__main__":
    cli.launch(EXPERIMENT)
