"""Policy distillation and Actor-Mimic: a student of trained agents. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("policy_distillation")
