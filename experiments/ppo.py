"""PPO on devices, or with actors in threads: CartPole by default. Try `--help`."""

from jaxrl_par import cli
from jaxrl_par.presets.ppo import EXPERIMENT

if __name__ == "__main__":
    cli.launch(EXPERIMENT)
