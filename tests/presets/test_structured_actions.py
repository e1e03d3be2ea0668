"""Every preset takes masks, arrays of choices and actions with names, or says in one
line that it does not, before anything is computed."""

import json
import re
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import optax
import pytest
from learners import imitation

from jaxrl_par import cli, presets, random
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.policy_distillation import FixedTeacher
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.presets import policy_distillation
from jaxrl_par.testing import choices
from jaxrl_par.topologies.compiled import compiled, train
from jaxrl_par.training import TrainingError, demonstrations
from jaxrl_par.training.recording import record

FEW = partial(choices.few_of_many, rooms=4, doors=2)
KINDS = {"masked": FEW, "pairs": choices.pairs, "parts": choices.parts}
ALL = "masked pairs parts"
TAKES = {
    "impala": ALL, "impala_threads": ALL, "ppo": ALL, "ppo_threads": ALL, "seed": ALL,
    "a2c": ALL, "a3c": ALL, "reinforce": ALL, "es": ALL, "rl2": ALL, "ppg": ALL,
    "trpo": ALL, "pbt": ALL, "sweep": ALL, "actor_learner_distillation": ALL,
    "async_q": "masked", "dqn": "masked", "apex": "masked", "r2d2": "masked",
    "gorila": "masked", "episodic_control": "masked",
    "r2d3": "masked", "policy_distillation": "masked",
    "sac": "", "td3": "", "ddpg": "", "naf": "", "dyna": "", "q_prop": "",
    "qt_opt": "", "gps": "", "maml": "",
}  # fmt: skip
"""What the learner of each takes."""
REFUSALS = (
    "take ppo|ppo takes any|take an environment that shows|chooses one of some actions"
    "|unknown family of tasks 'probe'|name one of ours or gymnax's"
)
"""The line says who takes it, or which actions or environments there are to be."""
SAME = {"impala_threads", "ppo_threads", "seed", "a3c", "apex", "rl2", "sweep"}
"""Those whose program is another one's, as far as actions are concerned."""
CASES = [
    (name, kind)
    for name, kinds in TAKES.items()
    if name not in SAME
    for kind in kinds.split()
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of a run, as far as its settings go."""
    path = tmp_path_factory.mktemp("teacher")
    (path / "config.json").write_text(json.dumps({"env_name": "probe"}))
    return str(path)


def settings(name, kind, teacher):
    experiment = presets.get(name).on("probe", environments=KINDS[kind])
    usual = experiment.config()
    memory = {} if usual.network.memory == "none" else {"memory_width": 8}
    options = {"network": replace(usual.network, widths=(8,), **memory)}
    if hasattr(usual, "replay"):
        small = {"capacity": 1_024, "min_size": 64, "batch_size": 8}
        small["demonstrations"] = None  # no expert knows the probes
        options["replay"] = replace(usual.replay, **small, updates_per_step=1)
    if hasattr(usual, "num_minibatches"):
        options["num_minibatches"] = 2
    if name == "episodic_control":
        options["method"] = "nec"
    if name in ("r2d2", "r2d3"):
        options |= {"dqn": replace(usual.dqn, burn_in=4), "sequence": 8}
    if name == "actor_learner_distillation":
        options["learner"] = replace(usual.learner, widths=(8,), memory_width=8)
    if name == "policy_distillation":
        options |= {"teachers": (teacher,), "acts": "student"}
    sizes = {"num_envs": 4, "unroll_length": 16}
    args = experiment.config(topology="compiled", **sizes, **options)
    # Rates are annealed over two updates.
    return experiment, replace(args, total_steps=args.rows_per_update + 1)


def test_no_preset_is_left_out():
    assert TAKES.keys() == presets.SUMMARIES.keys()


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", TAKES)
def test_what_a_preset_does_not_take_it_refuses_in_one_line(name, teacher):
    for kind in KINDS:
        experiment, args = settings(name, kind, teacher)
        if kind in TAKES[name].split():
            assert not args.problems()
            continue
        told = args.problems()
        if not told:  # it takes environments of anybody
            with pytest.raises(TrainingError) as error:
                cli.compose(args, experiment.make_agent)
            told = [str(error.value)]
        assert len(told) == 1 and "\n" not in told[0]
        assert re.search(REFUSALS, told[0])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_a_preset_takes_it_learns_from(name, kind, teacher, monkeypatch):
    experiment, args = settings(name, kind, teacher)
    if name == "policy_distillation":
        monkeypatch.setattr(policy_distillation, "loaded", some_teacher)
    learns(experiment, args)


def some_teacher(args):
    """One of random parameters, in place of that in the folder."""
    specs = args.specs()
    agent = a2c(actor_critic(*specs, NetworkConfig(widths=(4,))), optax.sgd(0.1))
    _, step = args.make_env(1).reset(random.key(3))
    return [FixedTeacher(agent, agent.init(random.key(4), step).params, specs, "a2c")]


def learns(experiment, args):
    """Two updates leave no number that is none."""
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
def test_demonstrations_have_masks_too(teacher, tmp_path):
    """R2D3 from what a policy did that keeps to them, final masks of zeros included."""
    experiment, args = settings("r2d3", "masked", teacher)
    (actor,), env = some_teacher(args), args.make_env(4)
    shown = record(actor.agent, actor.params, env, 200, random.key(5), greedy=False)
    masks = shown.trajectory.steps.obs.obs.allowed
    ends = shown.trajectory.steps.last
    assert ends.sum() > 4 and not masks[ends].any() and masks[~ends].any(-1).all()
    folder = str(tmp_path / "shown")
    demonstrations.write(folder, shown.trajectory, args.specs())
    given = {"demonstrations": folder, "demonstration_ratio": 1 / 2}
    args = replace(args, replay=replace(args.replay, **given))
    assert not args.problems()
    learns(experiment, args)


@pytest.mark.slow
def test_a_student_learns_from_a_teacher_that_keeps_to_masks():
    """What the teacher says is -inf where it is masked, for both alike."""
    env = FEW(4)
    _, metrics = train(compiled(imitation(env), env, 8), 4)
    assert np.isfinite(metrics["loss"]).all() and not metrics["no_action"].any()
    assert not metrics["skipped"].any()
