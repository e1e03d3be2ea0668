"""DQN from replay, on devices or with actors in threads. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("dqn")
