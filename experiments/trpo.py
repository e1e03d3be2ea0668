"""Trust region policy optimisation. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("trpo")
