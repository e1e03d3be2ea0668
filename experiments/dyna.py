"""Deep Dyna-Q: DQN that also learns from what a model imagines. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("dyna")
