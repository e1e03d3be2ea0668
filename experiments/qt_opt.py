"""QT-Opt: Q-learning whose best actions are searched for. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("qt_opt")
