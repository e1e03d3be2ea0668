"""Actor-learner distillation: a transformer learns, an LSTM acts. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("actor_learner_distillation")
