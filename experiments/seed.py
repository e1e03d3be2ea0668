"""SEED RL: one place acts for all environments, IMPALA with an LSTM. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("seed")
