"""DDPG from replay; with actors in threads it is Ape-X DPG. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("ddpg")
