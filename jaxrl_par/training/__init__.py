"""Training as an experiment: a folder, metrics, checkpoints, evaluation, pictures."""

from jaxrl_par.training import export
from jaxrl_par.training.asynchronous import AsyncArgs
from jaxrl_par.training.config import Flat, cli
from jaxrl_par.training.engines import Engine
from jaxrl_par.training.entry import (
    configure_jax,
    environment_problems,
    experiment,
    host_experiment,
    main,
)
from jaxrl_par.training.evaluation import Evaluation, evaluate, evaluator
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.host_evaluation import host_evaluator
from jaxrl_par.training.on_policy import OnPolicyArgs
from jaxrl_par.training.runner import Trained, train
from jaxrl_par.training.settings import TrainingConfig
from jaxrl_par.training.studies import kept_cases, machine
from jaxrl_par.training.summary import Summary
from jaxrl_par.training.threaded import ThreadsArgs

__all__ = [
    "AsyncArgs",
    "Engine",
    "Evaluation",
    "Flat",
    "OnPolicyArgs",
    "Summary",
    "ThreadsArgs",
    "Trained",
    "TrainingConfig",
    "TrainingError",
    "cli",
    "configure_jax",
    "environment_problems",
    "evaluate",
    "evaluator",
    "experiment",
    "export",
    "host_evaluator",
    "host_experiment",
    "kept_cases",
    "machine",
    "main",
    "train",
]
