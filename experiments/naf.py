"""NAF from replay; with collectors in threads it is asynchronous. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("naf")
