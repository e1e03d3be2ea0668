"""Learning to adapt: `--method maml|fomaml|reptile`. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("maml")
