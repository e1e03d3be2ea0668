"""Runs that others are made of."""

from jaxrl_par import presets
from jaxrl_par.training import TrainingConfig


def trained(folder, preset="a2c", name="teacher", **options):
    """The folder of a short run."""
    experiment = presets.get(preset)
    settings = TrainingConfig(
        runs_dir=str(folder), name=name, log_interval=1, gif=False, tensorboard=False,
        evaluation_envs=2, evaluation_episodes=1,
    )  # fmt: skip
    options = {"num_envs": 4, "unroll_length": 8, "total_steps": 40} | options
    run = experiment.run(experiment.config(training=settings, **options))
    return str(run.directory.path)
