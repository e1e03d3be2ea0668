"""Actor-learner distillation: a transformer learns, an LSTM acts. Try `--help`."""

from jaxrl_par import cli
from jaxrl_par.presets.actor_learner_distillation import EXPERIMENT

if __name__ == "__main__":
    cli.launch(EXPERIMENT)
