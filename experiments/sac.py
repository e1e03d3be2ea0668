"""SAC: a policy whose entropy has a price, from replay. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("sac")
