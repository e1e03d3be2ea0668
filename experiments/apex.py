"""Ape-X: actors in threads, a learner that waits for none. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("apex")
