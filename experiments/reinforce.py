"""Sample-parallel policy gradient: whole episodes. Try `--help`."""

from jaxrl_par import cli
from jaxrl_par.presets.reinforce import EXPERIMENT

if __name__ == "__main__":
    cli.launch(EXPERIMENT)
