"""PPO with actor threads in lockstep: solves LunarLander. Try `--help`."""

from jaxrl_par import cli
from jaxrl_par.presets.ppo_threads import EXPERIMENT

if __name__ == "__main__":
    cli.launch(EXPERIMENT)
