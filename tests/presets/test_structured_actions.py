"""Every preset takes masks, arrays of choices and actions with names, or says in one
line that it does not, before anything is computed."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from learners import imitation

from jaxrl_par import cli, presets
from jaxrl_par.testing import choices
from jaxrl_par.topologies.compiled import compiled, train
from jaxrl_par.training import TrainingError

FEW = partial(choices.few_of_many, rooms=4, doors=2)
KINDS = {"masked": FEW, "pairs": choices.pairs, "parts": choices.parts}
ALL = "masked pairs parts"
TAKES = {
    "impala": ALL, "impala_threads": ALL, "ppo": ALL, "ppo_threads": ALL, "seed": ALL,
    "a2c": ALL, "a3c": ALL, "reinforce": ALL, "es": ALL, "rl2": ALL, "ppg": ALL,
    "trpo": ALL, "pbt": ALL, "sweep": ALL, "actor_learner_distillation": ALL,
    "async_q": "masked", "dqn": "masked", "apex": "masked", "r2d2": "masked",
    "gorila": "masked", "episodic_control": "masked",
    "sac": "", "td3": "", "ddpg": "", "naf": "", "dyna": "", "q_prop": "",
}  # fmt: skip
"""What the learner of each takes."""
OTHERWISE = {"r2d3", "qt_opt", "maml", "gps", "policy_distillation"}
"""Those whose environments are others, or that need a teacher."""
SAME = {"impala_threads", "ppo_threads", "seed", "a3c", "apex", "rl2", "sweep"}
"""Those whose program is another one's, as far as actions are concerned."""
CASES = [
    (name, kind)
    for name, kinds in TAKES.items()
    if name not in SAME
    for kind in kinds.split()
]


def settings(name, kind):
    experiment = presets.get(name).on("probe", environments=KINDS[kind])
    usual = experiment.config()
    memory = {} if usual.network.memory == "none" else {"memory_width": 8}
    options = {"network": replace(usual.network, widths=(8,), **memory)}
    if hasattr(usual, "replay"):
        small = {"capacity": 1_024, "min_size": 64, "batch_size": 8}
        options["replay"] = replace(usual.replay, **small, updates_per_step=1)
    if hasattr(usual, "num_minibatches"):
        options["num_minibatches"] = 2
    if name == "episodic_control":
        options["method"] = "nec"
    if name == "r2d2":
        options |= {"dqn": replace(usual.dqn, burn_in=4), "sequence": 8}
    if name == "actor_learner_distillation":
        options["learner"] = replace(usual.learner, widths=(8,), memory_width=8)
    sizes = {"num_envs": 4, "unroll_length": 16}
    args = experiment.config(topology="compiled", **sizes, **options)
    # Rates are annealed over two updates.
    return experiment, replace(args, total_steps=args.rows_per_update + 1)


def test_no_preset_is_left_out():
    assert TAKES.keys() | OTHERWISE == presets.SUMMARIES.keys()


@pytest.mark.sample(6)
@pytest.mark.parametrize("name", TAKES)
def test_what_a_preset_does_not_take_it_refuses_in_one_line(name):
    for kind in KINDS:
        experiment, args = settings(name, kind)
        if kind in TAKES[name].split():
            assert not args.problems()
            continue
        told = "take ppo|ppo takes any|take an environment that shows"
        with pytest.raises(TrainingError, match=told) as error:
            cli.compose(args, experiment.make_agent)
        assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_a_preset_takes_it_learns_from(name, kind):
    experiment, args = settings(name, kind)
    placed = cli.place(args, cli.compose(args, experiment.make_agent))
    run, metrics = train(placed, 2)
    leaves = jax.tree.leaves(run.learner)
    numbers = [x for x in leaves if np.issubdtype(x.dtype, np.floating)]
    assert all(np.isfinite(x).all() for x in numbers)
    # Of nothing that ended there is no mean.
    told = {name: x for name, x in metrics.items() if not np.isnan(x).all()}
    assert all(np.isfinite(x[~np.isnan(x)]).all() for x in told.values()), told
    assert not np.any(told.get("skipped", 0.0))
    assert not np.any(told.get("no_action", 0.0))


@pytest.mark.slow
def test_a_student_learns_from_a_teacher_that_keeps_to_masks():
    """What the teacher says is -inf where it is masked, for both alike."""
    env = FEW(4)
    _, metrics = train(compiled(imitation(env), env, 8), 4)
    assert np.isfinite(metrics["loss"]).all() and not metrics["no_action"].any()
    assert not metrics["skipped"].any()
