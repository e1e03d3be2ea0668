"""QT-Opt as an experiment: bad settings, where its data are from, how it runs."""

from dataclasses import replace

import numpy as np
import pytest

from jaxrl_par import cli, envs, presets, random
from jaxrl_par.algorithms.qt_opt import CEMConfig, QTOptConfig
from jaxrl_par.cli import experts
from jaxrl_par.errors import problems
from jaxrl_par.loops import LabellingConfig
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.replay import PriorityConfig
from jaxrl_par.training import TrainingConfig, TrainingError, demonstrations
from jaxrl_par.types import Box

EXPERIMENT = presets.get("qt_opt")
USUAL = EXPERIMENT.config()
RECORDED = PriorityConfig(first="recorded")
ALONE = replace(USUAL.replay, demonstrations=None)


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({}, None),
        ({"topology": "threads"}, None),
        ({"off_policy": True}, None),
        (
            {"labels": "updaters", "labelling": LabellingConfig(4)},
            None,
        ),
        (
            {"off_policy": True, "replay": ALONE},
            "replay.demonstrations must be there to learn off policy, got None: give"
            ' the folder of a recording, or "expert" for a script\'s',
        ),
        (
            {"labelling": LabellingConfig(4)},
            "labelling.num_updaters is for labels = updaters, not own: leave it out,"
            " got 4",
        ),
        (
            {"qt_opt": QTOptConfig(cem=CEMConfig(num_elites=65))},
            "qt_opt.cem.num_elites must be at most num_candidates = 64, got 65",
        ),
        (
            {"replay": replace(USUAL.replay, prioritised=True, priorities=RECORDED)},
            "replay.priorities.first must be maximal here",
        ),
        (
            {"network": NetworkConfig(memory="gru")},
            "network.memory must be none here, got gru: it learns from single"
            " transitions, of which none has a memory",
        ),
        (
            {"env_name": "Pendulum-v1"},
            "replay.demonstrations: there is no expert of Pendulum-v1",
        ),
    ],
)
def test_bad_settings_are_told(changed, wrong):
    found = problems(replace(USUAL, **changed))
    assert len(found) == (wrong is not None)
    assert wrong is None or found[0].startswith(wrong)


def test_updaters_are_refused_where_gradients_are_late():
    given = {"labels": "updaters", "labelling": LabellingConfig(capacity=1024)}
    args = replace(USUAL, topology="delayed", **given)
    assert any(x.startswith('labels must be "own" here') for x in problems(args))


@pytest.mark.parametrize(
    ("spec", "message"),
    [("CartPole-v1", "for Discrete ones"), (Box((1,)), "a lower and a higher bound")],
)
def test_actions_that_cannot_be_searched_are_refused(spec, message, tmp_path):
    def unbounded(num_envs):
        env = envs.make("Pendulum-v1", num_envs)
        return env._replace(action_spec=spec)

    given = {"training": TrainingConfig(runs_dir=str(tmp_path / "runs"))}
    given["replay"] = ALONE
    if isinstance(spec, str):
        experiment, given["env_name"] = EXPERIMENT, spec
    else:
        experiment = EXPERIMENT.on("Free", environments=unbounded)
    with pytest.raises(TrainingError, match=message):
        experiment.run(experiment.config(**given))
    assert not (tmp_path / "runs").exists()


def tiny(tmp_path, name, **changed):
    settings = TrainingConfig(
        runs_dir=str(tmp_path), name=name, log_interval=1, gif=False,
        tensorboard=False, evaluation_envs=2, evaluation_episodes=1,
    )  # fmt: skip
    replay = replace(
        USUAL.replay, capacity=64, min_size=16, batch_size=16, updates_per_step=1,
        expert_steps=40,
    )  # fmt: skip
    usual = {"num_envs": 4, "unroll_length": 2, "total_steps": 32, "replay": replay}
    return EXPERIMENT.config(**usual | {"training": settings} | changed)


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["compiled", "delayed", "threads", "workers"])
def test_it_runs_where_replay_does(topology, tmp_path):
    trained = EXPERIMENT.run(tiny(tmp_path, topology, topology=topology))
    assert int(trained.run.progress.env_steps) >= 32


@pytest.mark.slow
def test_what_is_acted_off_policy_teaches_nothing(tmp_path):
    """From the data of a folder; updaters draw from them too."""
    name = USUAL.env_name
    shown = experts.shown(name, envs.make(name, 4), 60, 0)
    demonstrations.write(tmp_path / "shown", shown, envs.make(name, 1).specs)
    folder, usual = str(tmp_path / "shown"), USUAL.replay.expert_steps
    replay = tiny(tmp_path, "").replay
    replay = replace(replay, demonstrations=folder, expert_steps=usual)
    labels = LabellingConfig(2, batch_size=8, capacity=32)
    for labelled in ({}, {"labels": "updaters", "labelling": labels}):
        args = tiny(tmp_path, f"{len(labelled)}", replay=replay, off_policy=True)
        args = replace(args, **labelled)
        learner = EXPERIMENT.learner(args)
        program = cli.place(args, learner)
        run = program.init(random.key(0))
        data = run.local.data.updaters.replay if labelled else run.local.data
        assert int(data.items.size) == 4
        trained = EXPERIMENT.run(args).run.local.data
        trained = trained.updaters.replay if labelled else trained
        kept = trained.items.items.reward
        np.testing.assert_array_equal(kept, np.swapaxes(shown.reward, 0, 1))
