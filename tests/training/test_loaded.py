"""A run from its folder, without what only training needs."""

import json
import shutil
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from toy_workers import TOY

from jaxrl_par import random, training
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops import learner_of
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.population import population
from jaxrl_par.training import TrainingConfig, TrainingError
from jaxrl_par.training.directory import RunDirectory
from jaxrl_par.training.words import command_line

AGENT = TOY._replace(
    init=lambda key, step: TOY.init(key, step)._replace(
        params=jax.random.normal(key, (5,))
    )
)


@dataclass(frozen=True)
class Args:
    seed: int = 0
    num_envs: int = 4
    training: TrainingConfig = TrainingConfig(
        log_interval=2, tensorboard=False, checkpoint_interval=2
    )
    is_pure = True
    joined = None

    def make_env(self, num_envs):
        return probes.counter(num_envs)

    def make_host_env(self, key, num_envs=None, *, render=False):
        raise AssertionError("it is pure")

    def specs(self):
        return self.make_env(1).specs


class Experiment:
    """As `cli.Experiment`."""

    def settings(self, path):
        values = json.loads(path.read_text())
        return Args(seed=values["seed"], num_envs=values["num_envs"])

    def learner(self, args):
        return learner_of(AGENT)

    def evaluations(self, args, learner):
        def evaluate(run):
            total = jnp.sum(learner.params(run.learner))
            return {"sum": float(total), "key": float(jax.random.uniform(run.key))}

        return evaluate


def trained(path, program=None, num_updates=4, **settings):
    args = Args()
    kept = replace(args.training, runs_dir=str(path), name="run", **settings)
    args = replace(args, training=kept)
    evaluate = Experiment().evaluations(args, learner_of(AGENT))
    made = compiled(learner_of(AGENT), args.make_env(args.num_envs), 3)
    if program is not None:
        made, evaluate = program(made), None
    return training.train(
        made, args, kept, key=random.key(0), num_updates=num_updates, evaluate=evaluate
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    return trained(path, evaluation_interval=2, keep_best=True)


def load(path, **options):
    return training.load(path, experiment=Experiment(), **options)


def test_what_acts_comes_back_and_nothing_is_written(made):
    folder = made.directory.path
    before = {x: x.stat().st_mtime_ns for x in folder.rglob("*")}
    with load(str(folder)) as run:
        assert run.update == 4 and run.args.num_envs == 4
        np.testing.assert_array_equal(run.params, made.run.learner.params)
        assert run.evaluate() == made.summary.evaluation
        assert run.env.num_envs == 1 and run.env is run.env
        action, _, _ = run.agent.greedy(
            run.params, (), run.env.reset(random.key(0))[1], random.key(1)
        )
        assert action.shape == (1,)
    assert before == {x: x.stat().st_mtime_ns for x in folder.rglob("*")}


@pytest.mark.slow
def test_any_checkpoint_that_was_kept_can_be_had(made):
    folder = made.directory.path
    rows = [json.loads(x) for x in made.directory.metrics.read_text().splitlines()]
    by_update = {row["updates"]: row["sum"] for row in rows}
    assert load(folder, checkpoint=2).evaluate()["sum"] == by_update[2]
    best = load(folder, checkpoint="best")
    assert best.evaluate()["sum"] == max(by_update.values())
    assert best.update == max(by_update, key=by_update.__getitem__)
    with pytest.raises(TrainingError, match=r"no checkpoint of update 3. It has 2, 4"):
        load(folder, checkpoint=3)
    for wrong in ("newst", True):
        with pytest.raises(RefusedError, match="checkpoint must be 'newest', 'best'"):
            load(folder, checkpoint=wrong)
    with pytest.raises(TrainingError, match="of one run and no population"):
        load(folder, member=0)


@pytest.mark.slow
def test_a_member_of_a_population_is_a_run(tmp_path):
    def program(_):
        def one(values):
            return compiled(learner_of(AGENT), probes.counter(4), 3)

        return population(one, {"seed": jnp.arange(3)}).program

    whole = trained(tmp_path, program, 2)
    folder = whole.directory.path
    for member in range(3):
        params = load(folder, member=member).params
        np.testing.assert_array_equal(params, whole.run.learner.params[member])
    for wrong in (None, -1, 3):
        with pytest.raises(
            TrainingError, match=f": member must be 0 to 2, got {wrong}"
        ):
            load(folder, member=wrong)
    with command_line(), pytest.raises(TrainingError, match=": --member must be 0 to"):
        load(folder)


def test_folders_that_are_no_run_are_refused_in_a_sentence(made, tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(TrainingError, match="no folder of a run: it has no config"):
            load(path)
    config = RunDirectory(tmp_path).config
    config.write_text(made.directory.config.read_text())
    with pytest.raises(TrainingError, match="has no checkpoints of jaxrl_par"):
        load(tmp_path)
    with pytest.raises(TrainingError, match="no preset: give `experiment`"):
        training.load(made.directory.path)
    config.write_text('{"seed": 0}')
    with pytest.raises(TrainingError, match="says no experiment: give `experiment`"):
        training.load(tmp_path)
    with command_line(), pytest.raises(TrainingError, match="trained it, with --eval"):
        training.load(tmp_path)
    config.write_text("{")
    with pytest.raises(TrainingError, match=r"config.json, line 1: not JSON"):
        training.load(tmp_path)


def test_the_nearest_run_and_checkpoint_are_told(tmp_path):
    for name in ("ppo-CartPole-v1", "a2c-CartPole-v1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    meant = tmp_path / "ppo-CartPole-v1"
    with pytest.raises(TrainingError, match="; did you mean 'ppo-CartPole-v1'"):
        load(tmp_path / "ppo-CartPole-v2")
    with pytest.raises(TrainingError, match="in it: a2c-CartPole-v1, ppo-CartPole-v1"):
        load(tmp_path)
    with pytest.raises(TrainingError, match=r"it has no config\.json$"):
        load(tmp_path / "nothing-like-it")
    with pytest.raises(RefusedError, match="got 'bset'; did you mean 'best'"):
        load(meant, checkpoint="bset")
    with pytest.raises(TrainingError, match="has no best checkpoint: keep_best=True"):
        load(meant, checkpoint="best")


def test_another_learner_is_refused(made):
    class Other(Experiment):
        def learner(self, args):
            other = TOY._replace(init=lambda *_: {"w": jnp.zeros(3)})
            return learner_of(other._replace(params=lambda state: state["w"]))

    with pytest.raises(
        TrainingError, match=r"another experiment or config: learner\.w"
    ):
        training.load(made.directory.path, experiment=Other())


def test_a_damaged_checkpoint_falls_back_and_is_left_where_it_is(made, tmp_path):
    folder = shutil.copytree(made.directory.path, tmp_path / "run")
    damaged = folder / "checkpoints" / "4" / "state"
    for path in damaged.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="going back to step 2"):
        assert load(folder).update == 2
    assert damaged.exists()
    with pytest.raises(TrainingError, match=r"usable:\n  step 4: .* cannot be read"):
        load(folder, checkpoint=4)


@pytest.mark.slow
def test_an_episode_is_written_as_a_picture_that_moves(made, tmp_path):
    class Drawn(Experiment):
        def settings(self, path):
            class Drawable(Args):
                def make_env(self, num_envs):
                    from jaxrl_par import envs

                    return envs.make("CartPole-v1", num_envs)

            return Drawable()

    run = training.load(made.directory.path, experiment=Drawn())
    run.play(tmp_path / "new" / "a.gif")
    assert Image.open(tmp_path / "new" / "a.gif").n_frames > 2
    with pytest.raises(RefusedError, match=r"must end in .gif or .mp4"):
        run.play(tmp_path / "a.wav")
