"""Q-Prop: TRPO with a critic from replay as control variate. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("q_prop")
