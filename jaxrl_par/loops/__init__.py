"""What one training step does, for a topology to place on hardware."""

from jaxrl_par.loops.chain import Lessons, Parts, Stage, chain
from jaxrl_par.loops.distillation import DistillationConfig, Teacher, distillation
from jaxrl_par.loops.engine import Engine, Report
from jaxrl_par.loops.learner import (
    Deferred,
    Gradient,
    Halves,
    Learner,
    Remember,
    epochs,
    halves_of,
    lead_from,
    learn_from,
    learner_of,
    lesson_from,
    remembering,
    replayed,
    without_halves,
)
from jaxrl_par.loops.run import (
    Program,
    Progress,
    Run,
    count_skipped,
    new_run,
    unroll_keys,
)
from jaxrl_par.loops.shapes import data_shapes
from jaxrl_par.loops.updates import combined, learn, update

__all__ = [
    "Deferred",
    "DistillationConfig",
    "Engine",
    "Gradient",
    "Halves",
    "Learner",
    "Lessons",
    "Parts",
    "Program",
    "Progress",
    "Remember",
    "Report",
    "Run",
    "Stage",
    "Teacher",
    "chain",
    "combined",
    "count_skipped",
    "data_shapes",
    "distillation",
    "epochs",
    "halves_of",
    "lead_from",
    "learn",
    "learn_from",
    "learner_of",
    "lesson_from",
    "new_run",
    "remembering",
    "replayed",
    "unroll_keys",
    "update",
    "without_halves",
]
