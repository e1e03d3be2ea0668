"""Guided policy search: `--gps.method mdgps|badmm`. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("gps")
