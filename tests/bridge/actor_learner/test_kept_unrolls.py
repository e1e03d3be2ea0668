"""Unrolls that were kept are what was learned from, whatever a crash left of them."""

import os
import warnings

import gymnasium
import jax
import numpy as np
import optax
import pytest

from jaxrl_par import random
from jaxrl_par.algorithms.impala import impala
from jaxrl_par.bridge.actor_learner import kept_unrolls as kept
from jaxrl_par.bridge.actor_learner.kept_unrolls import Keeper, KeptUnrolls, Known
from jaxrl_par.bridge.unrolled import Episodes, Unrolled
from jaxrl_par.envs.host import Seeded, from_callable
from jaxrl_par.loops.records import Entry, RecordError
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, repeat_kept, threads
from jaxrl_par.training.checkpoints import state_hash
from jaxrl_par.types import Mean, TimeStep, Trajectory

T, B = 3, 2


def unrolled(actor=0, unroll=0):
    rng = np.random.default_rng([actor, unroll])
    flags = rng.random((T + 1, B)) < 0.5
    obs = {"b": rng.random((T + 1, B, 4), np.float32), "a": flags.astype(np.uint8)}
    numbers = [rng.random((T, B), np.float32) for _ in range(3)]
    extras = {"log_prob": numbers[2], "version": np.zeros((T, B), np.int32)}
    action = rng.integers(0, 3, (T, B), np.int32)
    steps = TimeStep(obs, flags, ~flags)
    carry = (rng.random((B, 4), np.float32),)
    trajectory = Trajectory(steps, action, *numbers[:2], extras, carry)
    mean = Mean(np.float32(1.5), np.float32(2))
    info = {"success_rate": mean}
    return Unrolled(actor, unroll, 0, 0, trajectory, Episodes(0.1, 7.0, 2), info, ())


def entry(item):
    return Entry(item.actor, item.unroll, item.generation, item.version)


def known(item):
    leaves, tree = jax.tree.flatten(item.trajectory)
    return Known(tree, [(x.shape, x.dtype) for x in leaves])


def written(path, updates, first_update=0):
    keeper = Keeper(path, first_update)
    for unrolls in updates:
        keeper.write(unrolls)


UPDATES = [[unrolled(0, i), unrolled(1, i)] for i in range(3)]


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "schedule.jsonl"
    written(path, UPDATES)
    there = KeptUnrolls(path)
    for number, unrolls in enumerate(UPDATES):
        entries = [entry(x) for x in unrolls]
        found = there.unrolls(number, entries, known(unrolls[0]))
        for one, other in zip(found, unrolls, strict=True):
            assert one[:4] == other[:4] and one.episodes == other.episodes
            assert one.info == other.info
            assert jax.tree.structure(one.trajectory) == jax.tree.structure(
                other.trajectory
            )
            for x, y in zip(*map(jax.tree.leaves, (one, other)), strict=True):
                np.testing.assert_array_equal(x, y)
                assert np.asarray(x).dtype == np.asarray(y).dtype
    assert there.num_envs(entry(UPDATES[0][1])) == B


def test_a_run_that_goes_on_drops_what_came_after(tmp_path):
    path = tmp_path / "schedule.jsonl"
    written(path, UPDATES)
    folder = kept.folder_of(path)
    (folder / "000000002.npz.begun").write_bytes(b"cut off")
    written(path, [[unrolled(0, 9)]], first_update=1)
    assert sorted(os.listdir(folder)) == ["000000000.npz", "000000001.npz"]
    again = KeptUnrolls(path)
    item = unrolled(0, 9)
    (found,) = again.unrolls(1, [entry(item)], known(item))
    np.testing.assert_array_equal(found.trajectory.action, item.trajectory.action)


def test_what_is_missing_damaged_or_of_others_is_refused(tmp_path):
    path = tmp_path / "schedule.jsonl"
    with pytest.raises(RecordError, match="was not recorded with keep_unrolls"):
        KeptUnrolls(path)
    written(path, UPDATES)
    there, item = KeptUnrolls(path), UPDATES[0][0]
    with pytest.raises(RecordError, match=r"000000003\.npz cannot be read"):
        there.unrolls(3, [entry(item)], known(item))
    with pytest.raises(RecordError, match="has no unroll 5 of actor 0"):
        there.unrolls(0, [entry(item)._replace(unroll=5)], known(item))
    other = known(item)
    wide = ((T, B + 1), np.dtype(np.float32))
    with pytest.raises(RecordError, match="or of another learner"):
        there.unrolls(0, [entry(item)], other._replace(shapes=[wide] * 9))
    file = kept.folder_of(path) / "000000001.npz"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(RecordError, match=r"000000001\.npz is damaged"):
        there.unrolls(1, [entry(UPDATES[1][0])], known(item))
    # What would be run when it is read is not read.
    np.savez(file, **{"0.1.0.leaf.0": np.array([object()], object)})
    with pytest.raises(RecordError, match=r"000000001\.npz is damaged"):
        there.unrolls(1, [entry(UPDATES[1][0])], known(item))


def test_a_full_disk_is_told_once_and_the_run_goes_on(tmp_path, monkeypatch):
    path = tmp_path / "schedule.jsonl"
    keeper = Keeper(path, 0)
    keeper.write(UPDATES[0])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept.np, "savez", full)
    with pytest.warns(UserWarning, match="No space left .* its unrolls are not kept"):
        keeper.write(UPDATES[1])
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keeper.write(UPDATES[2])
    assert os.listdir(kept.folder_of(path)) == ["000000000.npz"]


def test_a_disk_for_reading_alone_is_told_and_the_run_goes_on(disk):
    path = disk.path / "schedule.jsonl"
    keeper = Keeper(path, 0)
    keeper.write(UPDATES[0])
    disk.read_only()
    with pytest.warns(UserWarning, match="Read-only file system.* are not kept"):
        keeper.write(UPDATES[1])
    assert os.listdir(kept.folder_of(path)) == ["000000000.npz"]


class Chance(gymnasium.Env):
    """Nobody can repeat it: it asks the machine for its numbers."""

    observation_space = gymnasium.spaces.Box(0, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return self._obs(), {}

    def step(self, action):
        chance = os.urandom(1)[0]
        return self._obs(), chance / 256, chance < 32, False, {"is_success": chance % 2}

    def _obs(self):
        return np.frombuffer(os.urandom(3), np.uint8).astype(np.float32) / 255


def chances(seed):
    return from_callable(Chance, 2, seed, name="Chance")


NETWORK = NetworkConfig(widths=(8,), memory="lstm", memory_width=4)
AGENT = impala(actor_critic(*chances(0).specs, NETWORK), optax.adam(0.01))


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        ThreadsConfig(2, keep_unrolls=True),
        ThreadsConfig(3, "lockstep", 1, quorum=2, max_lag=1, keep_unrolls=True),
    ],
    ids=["free", "quorum"],
)
def test_a_run_of_chance_is_repeated_bit_for_bit_without_simulators(tmp_path, config):
    path, key = tmp_path / "schedule.jsonl", random.key(5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "nothing of actor")
        with threads(AGENT, Seeded(chances), 5, config, data_mesh(1)) as engine:
            engine.record(path)
            first, metrics = engine.advance(engine.init(key), 8)
    with repeat_kept(AGENT, 5, config, data_mesh(1), path) as engine:
        again, repeated = engine.advance(engine.init(key), 8)
    learned = [state_hash(x._replace(local=())) for x in (first, again)]
    assert learned[0] == learned[1]
    assert metrics.keys() == repeated.keys()
    for x, y in zip(*map(jax.tree.leaves, (metrics, repeated)), strict=True):
        np.testing.assert_array_equal(x, y)
    assert np.sum(metrics["success_rate"].count) > 0


@pytest.mark.slow
def test_an_agent_that_does_not_know_its_specs_is_refused(tmp_path):
    config = ThreadsConfig(2, keep_unrolls=True)
    with pytest.raises(ValueError, match=r"must be one that knows .* Agent\.specs"):
        repeat_kept(AGENT._replace(specs=None), 5, config, data_mesh(1), tmp_path)
