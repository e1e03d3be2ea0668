"""Asynchronous Q-learning, SARSA and n-step Q-learning, on CartPole. Try `--help`."""

from jaxrl_par import cli
from jaxrl_par.presets.async_q import EXPERIMENT

if __name__ == "__main__":
    cli.launch(EXPERIMENT)
