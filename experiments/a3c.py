"""A3C, on CartPole by default: A2C on asynchronous workers. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("a3c")
