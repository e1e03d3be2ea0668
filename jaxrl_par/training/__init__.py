"""A run as an experiment: a module for each thing that it leaves, shows or hears."""

from jaxrl_par.training.evaluation import Evaluation, evaluate, evaluator
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.host_evaluation import host_evaluator
from jaxrl_par.training.loaded import Loaded, load
from jaxrl_par.training.runner import Trained, train
from jaxrl_par.training.settings import TrainingConfig
from jaxrl_par.training.side_by_side import Comparison, compare
from jaxrl_par.training.summary import Summary

__all__ = [
    "Comparison",
    "Evaluation",
    "Loaded",
    "Summary",
    "Trained",
    "TrainingConfig",
    "TrainingError",
    "compare",
    "evaluate",
    "evaluator",
    "host_evaluator",
    "load",
    "train",
]
