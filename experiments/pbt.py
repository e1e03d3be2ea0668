"""Population-based training: members copy each other. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("pbt")
