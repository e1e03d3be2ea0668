"""Tabular methods: small finite problems, solved where they are known, or learned.

    sarsa = ControlConfig("sarsa", step_size=constant(0.5))
    learned, transitions = learned_action_values(
        jax.random.key(0), cliff_walking(), sarsa, num_steps=10_000
    )
    learned.table.values  # Q [S, A]

Everything is a pure function of arrays, so that thousands of learners are one `vmap`.
"""

from jaxrl_par.algorithms.tabular.control import (
    ControlConfig,
    ControlState,
    control_step,
    control_update,
    learned_action_values,
)
from jaxrl_par.algorithms.tabular.dyna import (
    DynaConfig,
    DynaState,
    dyna_step,
    dyna_update,
    learned_by_dyna,
    new_learner,
)
from jaxrl_par.algorithms.tabular.evaluation import (
    action_values,
    evaluate,
    evaluate_by_sweeps,
    evaluate_episodic,
    evaluate_until,
    state_values,
    sweep,
)
from jaxrl_par.algorithms.tabular.experience import Experience, transitions_of
from jaxrl_par.algorithms.tabular.mdp import (
    MDP,
    Transition,
    checked_policy,
    finite_mdp,
    uniform_policy,
)
from jaxrl_par.algorithms.tabular.model import Estimate, estimate
from jaxrl_par.algorithms.tabular.parallel import accumulated, averaged
from jaxrl_par.algorithms.tabular.planning import (
    improved,
    policy_iteration,
    value_iteration,
)
from jaxrl_par.algorithms.tabular.problems import (
    chain,
    cliff_walking,
    maze,
    random_mdp,
    random_walk,
    two_state,
)
from jaxrl_par.algorithms.tabular.tables import (
    HARMONIC,
    POLYNOMIAL,
    StepSize,
    Table,
    constant,
    new_table,
)
from jaxrl_par.algorithms.tabular.td import (
    TDState,
    learned_values,
    replay,
    td_step,
    td_update,
)

__all__ = [
    "HARMONIC",
    "MDP",
    "POLYNOMIAL",
    "ControlConfig",
    "ControlState",
    "DynaConfig",
    "DynaState",
    "Estimate",
    "Experience",
    "StepSize",
    "TDState",
    "Table",
    "Transition",
    "accumulated",
    "action_values",
    "averaged",
    "chain",
    "checked_policy",
    "cliff_walking",
    "constant",
    "control_step",
    "control_update",
    "dyna_step",
    "dyna_update",
    "estimate",
    "evaluate",
    "evaluate_by_sweeps",
    "evaluate_episodic",
    "evaluate_until",
    "finite_mdp",
    "improved",
    "learned_action_values",
    "learned_by_dyna",
    "learned_values",
    "maze",
    "new_learner",
    "new_table",
    "policy_iteration",
    "random_mdp",
    "random_walk",
    "replay",
    "state_values",
    "sweep",
    "td_step",
    "td_update",
    "transitions_of",
    "two_state",
    "uniform_policy",
    "value_iteration",
]
