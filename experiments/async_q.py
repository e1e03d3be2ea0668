"""Asynchronous Q-learning, SARSA and n-step Q-learning, on CartPole. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("async_q")
