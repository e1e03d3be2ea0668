"""Phasic policy gradient: PPO with auxiliary phases. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("ppg")
