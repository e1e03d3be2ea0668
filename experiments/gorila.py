"""Gorila, DQN on bundles of actor, replay and learner. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("gorila")
