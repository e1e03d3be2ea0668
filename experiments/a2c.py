"""A2C, which solves CartPole in seconds. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("a2c")
