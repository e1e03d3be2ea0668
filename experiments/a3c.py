"""A3C, on CartPole by default: A2C on asynchronous workers. Try `--help`."""

from jaxrl_par import cli
from jaxrl_par.presets.a3c import EXPERIMENT

if __name__ == "__main__":
    cli.launch(EXPERIMENT)
