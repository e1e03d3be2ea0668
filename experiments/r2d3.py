"""R2D3, R2D2 from demonstrations as well: IMaze-21x21. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("r2d3")
