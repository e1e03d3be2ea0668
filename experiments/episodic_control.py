"""Episodic control: MFEC, or NEC by `--method nec`. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("episodic_control")
