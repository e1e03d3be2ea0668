"""IMPALA, on Breakout-MinAtar by default. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("impala")
