"""Evolution strategies: perturbed parameters play. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("es")
