"""A2C, which solves CartPole in seconds. Try `--help`."""

from jaxrl_par import cli
from jaxrl_par.presets.a2c import EXPERIMENT

if __name__ == "__main__":
    cli.launch(EXPERIMENT)
