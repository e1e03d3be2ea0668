"""What one training step does, as a program that a topology can place on hardware."""

from jaxrl_par.loops.distillation import (
    DistillationConfig,
    DistillationState,
    Teacher,
    distillation,
)
from jaxrl_par.loops.learning import (
    Learning,
    Remember,
    Teaching,
    learn_from,
    learner,
    teach_from,
)
from jaxrl_par.loops.programs import Local, episodic, on_policy, program
from jaxrl_par.loops.run import (
    Program,
    Progress,
    Run,
    count_skipped,
    new_run,
    unroll_keys,
)
from jaxrl_par.loops.updates import combined, learn, update

__all__ = [
    "DistillationConfig",
    "DistillationState",
    "Learning",
    "Local",
    "Program",
    "Progress",
    "Remember",
    "Run",
    "Teacher",
    "Teaching",
    "combined",
    "count_skipped",
    "distillation",
    "episodic",
    "learn",
    "learn_from",
    "learner",
    "new_run",
    "on_policy",
    "program",
    "teach_from",
    "unroll_keys",
    "update",
]
