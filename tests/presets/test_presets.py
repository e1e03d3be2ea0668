"""Every preset composes on the topologies that its learner takes, and on no other."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import jax
import numpy as np
import pytest
from short_runs import trained

from jaxrl_par import cli, presets, random, rollout, training
from jaxrl_par.algorithms.impala import ImpalaConfig
from jaxrl_par.errors import RefusedError, problems
from jaxrl_par.loops import Engine
from jaxrl_par.networks import NetworkConfig, TransformerConfig
from jaxrl_par.topologies.gossip import GossipConfig
from jaxrl_par.topologies.threads import ThreadsConfig
from jaxrl_par.topologies.workers import WorkersConfig
from jaxrl_par.training import TrainingConfig, TrainingError

pytestmark = pytest.mark.usefixtures("declared")

ALL = get_args(cli.Topology)
SAMPLED = ("compiled", "gossip", "threads", "fleet")
TAKES = {
    "a2c": ALL,
    "a3c": ALL,
    "apex": SAMPLED,
    "actor_learner_distillation": ("compiled", "threads", "fleet"),
    "async_q": ALL,
    "ddpg": SAMPLED,
    "dqn": SAMPLED,
    "dyna": SAMPLED,
    "es": ("compiled", "workers", "fleet"),
    "episodic_control": ("compiled", "threads"),
    "gorila": ALL,
    "gps": ("compiled", "delayed"),
    "impala": SAMPLED,
    "impala_threads": SAMPLED,
    "maml": ("compiled",),
    "naf": SAMPLED,
    "pbt": ("compiled",),
    "policy_distillation": SAMPLED,
    "ppg": SAMPLED,
    "ppo": SAMPLED,
    "ppo_threads": SAMPLED,
    "q_prop": ("compiled", "threads", "fleet"),
    "r2d2": SAMPLED,
    "r2d3": SAMPLED,
    "reinforce": ("compiled",),
    "sac": SAMPLED,
    "rl2": SAMPLED,
    "seed": SAMPLED,
    "sweep": ("compiled",),
    "td3": SAMPLED,
    "qt_opt": SAMPLED,
    "trpo": ("compiled", "delayed", "threads", "fleet"),
}
LSTM = NetworkConfig(widths=(8,), memory="lstm", memory_width=8)
SMALL = {
    "learner": NetworkConfig(
        widths=(8,), memory="gtrxl", memory_width=8,
        transformer=TransformerConfig(num_layers=1, num_heads=2, memory_length=4),
    )
}  # fmt: skip
LATE = ("threads", "workers", "fleet")
KNOWN = {"r2d3": "IMaze-5x5", "maml": "Navigation", "qt_opt": "Grasping-8x8"}
KNOWN |= {"gps": "Door-60"}
KNOWN |= dict.fromkeys(("ddpg", "naf", "q_prop", "sac", "td3"), "Pendulum-v1")
"""Where presets run that not every environment is for: there is somebody to show it."""


def parts(name):
    """Its settings, and what makes its agent."""
    return presets.get(name)[:2]


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", TAKES)
def test_a_preset_runs_where_its_learner_can_and_says_so_elsewhere(name, tmp_path):
    config, make_agent = parts(name)
    given = {}
    if name == "policy_distillation":
        given = {"acts": "student", "teachers": (trained(tmp_path),)}
    if name == "qt_opt":
        given = {"replay": replace(config().replay, expert_steps=50)}
    for topology in ALL:
        env_name = KNOWN.get(name, "CartPole-v1")
        two = {"gossip": GossipConfig(2)} if topology == "gossip" else {}
        where = {"topology": topology, "env_name": env_name} | two | given
        args = config(total_steps=100_000, **where)
        if topology not in TAKES[name]:
            (refused,) = args.problems()
            assert "topology must be" in refused or "has no halves" in refused
            continue
        assert not args.problems()
        placed = cli.place(args, cli.compose(args, make_agent))
        assert isinstance(placed, Engine) == (topology in LATE)
        if isinstance(placed, Engine):
            placed.close()


@pytest.mark.parametrize("name", ["ppo", "impala"])
def test_a_single_pass_has_halves(name):
    config, make_agent = parts(name)
    args = config(topology="delayed", num_epochs=1, num_minibatches=1)
    cli.place(args, cli.compose(args, make_agent))


def test_a_preset_differs_from_its_base_in_defaults_alone():
    base, make_agent = parts("a2c")
    preset, same = parts("a3c")
    assert issubclass(preset, base) and same is make_agent
    base, _ = parts("impala")
    preset, _ = parts("impala_threads")
    assert issubclass(preset, base)
    # Of both, each default is the one that was meant.
    assert preset().env_name == "LunarLander-v3" and preset().num_epochs == 4
    assert preset().optimizer.name == "adam" and preset().num_minibatches == 8


def test_distillation_normalises_nothing_and_says_so():
    config, make_learner = parts("actor_learner_distillation")
    with pytest.raises(TrainingError, match="normalize is for a single agent"):
        cli.compose(config(normalize=True), make_learner)


def test_without_a_pupil_the_algorithms_own_behaviour_cost_holds():
    """The policy that acted is recorded only where the loss needs it."""
    config, make_learner = parts("actor_learner_distillation")

    def recorded(cost):
        args = config(method="lstm", impala=ImpalaConfig(behaviour_cost=cost))
        learner, env = cli.compose(args, make_learner), args.make_env(2)
        _, step = jax.eval_shape(env.reset, random.key(0))
        state = jax.eval_shape(learner.init, random.key(0), step)
        params = learner.params(state)
        return "policy" in rollout.shapes(learner.actor, params, step, 3).extras

    assert recorded(0.5) and not recorded(0.0)


def test_a_behaviour_cost_below_0_is_refused():
    config, _ = parts("actor_learner_distillation")
    told = "behaviour_cost must be at least 0, got -0.5"
    assert told in problems(config(behaviour_cost=-0.5))
    assert not problems(config(behaviour_cost=0.0))


def tiny(config, tmp_path, topology, name="run", **options):
    """Two updates without pictures."""
    settings = TrainingConfig(
        runs_dir=str(tmp_path), name=name, log_interval=1, gif=False,
        tensorboard=False, evaluation_envs=2, evaluation_episodes=1,
    )  # fmt: skip
    args = config(
        topology=topology, num_envs=4, unroll_length=8,
        training=settings, **options,
    )  # fmt: skip
    # The second reaches it, with rows that end an episode and without.
    return replace(args, total_steps=args.lanes * args.unroll_length + 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "topology", "options"),
    [
        ("async_q", "compiled", {}),
        ("a2c", "threads", {"normalize": True}),
        ("a2c", "workers", {"workers": WorkersConfig(num_workers=2)}),
        ("a2c", "delayed", {"normalize": True}),
        ("ppo", "threads", {"env_name": "LunarLander-v3", "show_previous": True}),
        ("reinforce", "compiled", {}),
        ("impala", "compiled", {"network": LSTM, "num_minibatches": 2}),
        ("actor_learner_distillation", "threads", SMALL),
    ],
)
def test_a_preset_trains_and_is_loaded(name, topology, options, tmp_path):
    config, make_agent = parts(name)
    args = tiny(config, tmp_path, topology, **options)
    if not args.is_pure:
        pytest.importorskip("gymnasium")
    assert not args.problems()
    trained = presets.get(name).run(args)
    assert trained.summary.updates == 2
    assert set(trained.summary.evaluation) == {"sampled_return", "greedy_return"}
    learner = cli.compose(args, make_agent)
    with training.load(trained.directory.path) as run:
        assert run.update == 2 and run.args.num_envs == 4
        expected = learner.params(trained.run.learner)
        jax.tree.map(np.testing.assert_array_equal, run.params, expected)
        assert run.evaluate() == trained.summary.evaluation
        run.play(tmp_path / "episode.gif")


@pytest.mark.slow
def test_a_sweep_is_loaded_by_its_members_and_compared_by_their_settings(tmp_path):
    config, _ = parts("sweep")
    args = tiny(config, tmp_path, "compiled", learning_rates=(1e-3, 1e-2))
    args = replace(args, entropy_costs=(1e-4,), total_steps=400)
    trained = presets.get("sweep").run(args)
    members = range(args.num_members)
    folder, params = trained.directory.path, trained.run.learner.params
    for member in members:
        with training.load(folder, member=member) as run:
            expected = jax.tree.map(lambda x, i=member: x[i], params)
            jax.tree.map(np.testing.assert_array_equal, run.params, expected)
    assert set(run.evaluate()) == {"sampled_return", "greedy_return"}
    with pytest.raises(TrainingError, match="member must be 0 to 3"):
        training.load(folder)
    rates = [group.name for group in training.compare([folder]).groups]
    assert rates == ["run: learning_rate = 0.001", "run: learning_rate = 0.01"]


@pytest.mark.slow
def test_threads_on_a_pure_environment_are_repeated_from_their_folder(tmp_path):
    config, make_agent = parts("a2c")
    threads = ThreadsConfig(num_actors=2)

    def trained(**options):
        args = tiny(config, tmp_path, "threads", threads=threads, **options)
        return cli.train(args, cli.compose(args, make_agent))

    first = trained()
    again = trained(name="again", repeat=str(first.directory.schedule))
    jax.tree.map(np.testing.assert_array_equal, first.run.learner, again.run.learner)


def test_no_preset_is_left_out():
    folder = Path(presets.__file__).parent
    modules = {x.stem for x in folder.glob("*.py")} - {"__init__"}
    assert modules == presets.SUMMARIES.keys() == TAKES.keys()
    assert all(presets.get(name).name == name for name in TAKES)


@pytest.mark.parametrize("count", [0, 10**20])
def test_no_preset_computes_with_a_count_that_is_wrong(count):
    for name in ("apex", "gorila", "ppo_threads"):
        args = presets.get(name).config()
        for part, field in (("threads", "num_actors"), ("workers", "num_workers")):
            wrong = replace(getattr(args, part), **{field: count})
            found = problems(replace(args, **{part: wrong}))
            assert any(x.startswith(f"{part}.{field} must be") for x in found), found


def test_an_unknown_preset_gets_the_nearest_name():
    with pytest.raises(RefusedError, match=r"'impla'; did you mean 'impala'\?"):
        presets.get("impla")


def test_a_mistake_within_a_topology_keeps_its_trace(monkeypatch):
    """Only what is refused on purpose is a sentence of the command line."""
    config, make_agent = parts("a2c")
    args = config()
    learner = cli.compose(args, make_agent)

    def mistaken(*_):
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(config, "make_program", mistaken)
    with pytest.raises(ValueError, match="broadcast"):
        cli.place(args, learner)
    monkeypatch.undo()
    with pytest.raises(TrainingError, match="asked for 9 devices, found 8"):
        cli.place(replace(args, num_devices=9, num_envs=9), learner)
    with pytest.raises(TrainingError, match="has no halves"):
        cli.place(replace(args, topology="delayed"), learner._replace(halves=None))


def test_apex_in_lockstep_is_asked_for_by_two_options():
    """As its docstring says: what else the preset has is for the decoupled schedule."""
    config, _ = parts("apex")
    argv = ["--threads.schedule", "lockstep", "--threads.lag", "0"]
    threads = cli.parse(config, argv).threads
    # Actors that wait for a version must get each.
    assert (threads.batch, threads.updates_per_version) == (2, 1)
    usual = config().threads
    assert (usual.batch, usual.updates_per_version) == (1, 4)
