"""RL^2, memory that learns how to learn a task: Bandits-5x10. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("rl2")
