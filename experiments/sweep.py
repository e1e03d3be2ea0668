"""A sweep of A2C in one program: seeds and hyperparameters are a population."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("sweep")
