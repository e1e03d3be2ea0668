"""What one training step does, for a topology to place on hardware."""

from jaxrl_par.loops.adaptation import adaptation, returns_after
from jaxrl_par.loops.chain import Lessons, Parts, Stage, chain
from jaxrl_par.loops.distillation import DistillationConfig, Teacher, distillation
from jaxrl_par.loops.dyna import ImaginationConfig, dyna
from jaxrl_par.loops.elsewhere import (
    add_from,
    go_on,
    lead_from,
    learn_from,
    lesson_from,
)
from jaxrl_par.loops.engine import Engine, Report
from jaxrl_par.loops.evolution import evolution
from jaxrl_par.loops.inner_steps import AdaptationConfig, adapt, meta_gradient
from jaxrl_par.loops.judging import judged
from jaxrl_par.loops.labelling import LabellingConfig, labelling
from jaxrl_par.loops.learner import (
    Deferred,
    Gradient,
    Halves,
    Kept,
    Learner,
    Remember,
    epochs,
    halves_of,
    learner_of,
    refuse_joint,
    remembering,
    replayed,
    without_halves,
)
from jaxrl_par.loops.phases import PhasesConfig, phasic
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
    "AdaptationConfig",
    "Deferred",
    "DistillationConfig",
    "Engine",
    "Gradient",
    "Halves",
    "ImaginationConfig",
    "Kept",
    "LabellingConfig",
    "Learner",
    "Lessons",
    "Parts",
    "PhasesConfig",
    "Program",
    "Progress",
    "Remember",
    "Report",
    "Run",
    "Stage",
    "Teacher",
    "adapt",
    "adaptation",
    "add_from",
    "chain",
    "combined",
    "count_skipped",
    "data_shapes",
    "distillation",
    "dyna",
    "epochs",
    "evolution",
    "go_on",
    "halves_of",
    "judged",
    "labelling",
    "lead_from",
    "learn",
    "learn_from",
    "learner_of",
    "lesson_from",
    "meta_gradient",
    "new_run",
    "phasic",
    "refuse_joint",
    "remembering",
    "replayed",
    "returns_after",
    "unroll_keys",
    "update",
    "without_halves",
]
