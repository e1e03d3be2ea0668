"""IMPALA with actor threads, for simulators: LunarLander by default. Try `--help`."""

from jaxrl_par import cli
from jaxrl_par.presets.impala_threads import EXPERIMENT

if __name__ == "__main__":
    cli.launch(EXPERIMENT)
