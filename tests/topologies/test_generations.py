"""Workers that play parts of generations compute what the program does."""

import threading
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scripted
from nearness import assert_near

from jaxrl_par import random
from jaxrl_par.algorithms.es import ESConfig, es
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.axis import Axis
from jaxrl_par.bridge.generations.board import Board
from jaxrl_par.bridge.generations.evaluator import Evaluator
from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.envs.host import from_pure
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops import evolution, unroll_keys
from jaxrl_par.loops.generations import Played
from jaxrl_par.loops.records import RecordError
from jaxrl_par.networks import NetworkConfig, policy_network
from jaxrl_par.perturbations import NoiseConfig, noise_of
from jaxrl_par.presets.es import Args
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.topologies.generations import (
    GenerationsConfig,
    PartsConfig,
    generations,
    repeat_recorded,
)
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.topologies.workers import WorkersConfig
from jaxrl_par.training.checkpoints import state_hash

KEY, MEMBERS, STEPS = random.key(0), 8, 9
NOISE = NoiseConfig(0.1)
ENV = probes.memory(2)


def agent_of(specs, normalised=True, **config):
    network = policy_network(*specs, NetworkConfig(widths=(4,)))
    agent = es(network, optax.sgd(0.1), ESConfig(**config))
    return normalize_observations(agent) if normalised else agent


def workers(num_workers=2, num_parts=None, quorum=None, **supervision):
    parts = PartsConfig(num_parts, quorum)
    limits = SupervisionConfig(**supervision)
    return GenerationsConfig(num_workers, parts, limits)


def engine(config, env=ENV, agent=None, **options):
    agent = agent or agent_of(ENV.specs, policy="sampled")
    return generations(agent, env, NOISE, MEMBERS, STEPS, config, **options)


def advanced(bridge, num_updates=3, run=None):
    with bridge:
        made = bridge.init(KEY)
        return bridge.advance(made if run is None else run, num_updates)


def simulators(key):
    return from_pure(ENV, key)


def played_alone(axis=Axis(), share=MEMBERS, **options):
    agent = agent_of(ENV.specs, policy="sampled")
    return evolution(agent, ENV, NOISE, share, STEPS, axis=axis, **options)


@pytest.mark.slow
def test_one_part_is_the_program_bit_for_bit():
    program = played_alone(cap_factor=2.0)
    theirs, _ = jax.jit(scanned(program, 3))(jax.jit(program.init)(KEY))
    ours, metrics = advanced(engine(workers(2, 1), cap_factor=2.0))
    assert state_hash(ours) == state_hash(theirs)
    assert metrics["fitness"].count.tolist() == [MEMBERS] * 3
    assert "dropped" not in metrics


@pytest.mark.slow
def test_parts_are_what_devices_of_a_mesh_play():
    program = sharded(played_alone(Axis("data"), 2), data_mesh(4))
    theirs, told = jax.jit(scanned(program, 3))(jax.jit(program.init)(KEY))
    ours, metrics = advanced(engine(workers(3, 4)))
    for name in ("fitness", "episode_return", "episode_length"):
        jax.tree.map(np.testing.assert_array_equal, metrics[name], told[name])
    assert_near(ours.learner.inner, theirs.learner.inner, 1e-6)
    assert_near(ours.learner.statistics.mean, theirs.learner.statistics.mean, 1e-6)
    assert int(ours.progress.env_steps) == int(theirs.progress.env_steps)


@pytest.mark.slow
def test_simulators_play_what_pure_environments_do():
    """Row by row, one member after the other: the same bits, statistics among them."""
    ours, _ = advanced(engine(workers(2, 4), simulators, cap_factor=0.5))
    theirs, _ = advanced(engine(workers(1, 4), cap_factor=0.5))
    assert state_hash(ours) == state_hash(theirs)


@pytest.mark.slow
def test_simulators_show_the_random_play_that_pure_environments_do():
    agent = agent_of(ENV.specs, normalised=False, policy="sampled", reference_rows=11)
    ours, _ = advanced(engine(workers(2, 4), simulators, agent), 2)
    theirs, _ = advanced(engine(workers(1, 4), agent=agent), 2)
    assert np.ptp(np.asarray(ours.learner.reference, np.float32)) > 0
    assert state_hash(ours) == state_hash(theirs)


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_left():
    whole, _ = advanced(engine(workers()), 4)
    half, _ = advanced(engine(workers()), 2)
    rest, _ = advanced(engine(workers(1, 2)), 2, half)
    assert state_hash(rest) == state_hash(whole)


@pytest.fixture
def specs(world):
    env = scripted.Scripted(world, 0, 0)
    return env.specs


def in_world(world, specs, config):
    agent = agent_of(specs, normalised=False)
    return engine(config, world.make, agent)


def test_a_part_that_fails_is_played_again_and_nothing_is_lost(world, specs):
    whole, _ = advanced(in_world(world, specs, workers(2, 4)))
    assert not world.unclosed()
    broken = []

    def before(call):
        if call.kind == "step" and call.life == 12 and call.step == 2 and not broken:
            broken.append(call)
            raise scripted.SimulatorError("the arm is broken")

    again = scripted.World(before)
    config = workers(2, 4, on_error="restart", patience=20.0)
    bridge = in_world(again, specs, config)
    with pytest.warns(UserWarning, match="made its environments anew after Simulator"):
        ours, _ = advanced(bridge)
    assert broken and bridge.report().restarts == 1
    assert bridge.report().dropped_rows > 0
    assert state_hash(ours) == state_hash(whole)
    assert not again.unclosed()


def test_an_error_ends_the_run_and_says_where(world, specs):
    def before(call):
        if call.kind == "step" and call.life == 3:
            raise scripted.SimulatorError("the arm is broken")

    world.before = before
    with pytest.raises(scripted.SimulatorError, match="the arm is broken") as told:
        advanced(in_world(world, specs, workers(1, 2)))
    notes = "\n".join(told.value.__notes__)
    assert "in step of worker 0" in notes and "part 0 of generation 0" in notes


@pytest.mark.slow
def test_a_simulator_that_hangs_is_replaced_and_its_part_played_again(world, specs):
    whole, _ = advanced(in_world(scripted.World(), specs, workers(2, 4)))
    hung = []

    def before(call):
        if call.kind == "step" and call.life == 8 and not hung:
            hung.append(call)
            world.hang()

    world.before = before
    config = workers(2, 4, on_error="restart", env_timeout=1.0, close_seconds=1.0)
    with pytest.warns(UserWarning, match="HangError"):
        ours, _ = advanced(in_world(world, specs, config))
    assert hung
    assert state_hash(ours) == state_hash(whole)


PAIRS = np.array([[1, 8], [2, 7], [3, 6], [4, 5]], np.float32)


class Slow(Evaluator):
    """What trap P5 has: a pair takes as long as its larger value, the first longest.
    Later generations are 10 better, and at once there."""

    def __init__(self, index, activity, ended):
        super().__init__(index, KEY, jax.devices()[0], activity)
        self.ended = ended
        self.env = ENV

    def start(self, key, generation=0, unroll=0):
        pass

    def resume(self, state, key, fresh_key):
        return True

    def state(self):
        return ()

    def where(self, row=None):
        return "nowhere"

    def close(self):
        pass

    def evaluate(self, task):
        if task.generation == 0:
            if task.part < 3:
                assert self.ended[task.part + 1].wait(30)
            if task.part == 0:
                assert self.ended["generation"].wait(30)
            self.ended[task.part].set()
        else:
            # What is late comes while the next generation is open.
            self.ended["generation"].set()
            assert self.ended["put"].wait(30)
        ones = np.ones((1, 2, 1), np.int32)
        fitness = PAIRS[task.part][None] + np.float32(10 * (task.generation > 0))
        pairs = np.array([task.part], np.int32)
        own = np.zeros(1, np.float32), np.ones(1, np.int32)
        return Played(pairs, fitness, ones, *own, ())


def test_pairs_enter_whole_and_what_is_late_is_told(monkeypatch):
    """TRAP P5: of pairs (1, 8), (2, 7), (3, 6), (4, 5) six results close a generation.
    With 0 for a half that is late, 1 - 0 and 2 - 0 would turn the sign of two pairs."""
    agent = agent_of(ENV.specs, normalised=False, weight_decay=0.0)
    bridge = engine(workers(4, 4, quorum=3), agent=agent)
    ended = {name: threading.Event() for name in (0, 1, 2, 3, "generation", "put")}
    put = Board.put

    def watched(board, worker, generation, played, rows):
        put(board, worker, generation, played, rows)
        if np.array_equal(played.fitness, PAIRS[:1]):
            ended["put"].set()

    monkeypatch.setattr(Board, "put", watched)
    with bridge:
        make_system = bridge._make_system

        def slow(key):
            system = make_system(key)
            system.actor = partial(Slow, ended=ended)
            return system

        bridge._make_system = slow
        run = bridge.init(KEY)
        flat, unravel = jax.flatten_util.ravel_pytree(run.learner.params)
        after, metrics = bridge.advance(run, 1)
        assert metrics["fitness"].total[0] == 27 and metrics["fitness"].count[0] == 6
        assert metrics["dropped"][0] == 0

        # Ranks over those that entered: (-.5, .5), (-.3, .3), (-.1, .1).
        differences = np.array([-1.0, -0.6, -0.2], np.float32)
        noise_key, _ = unroll_keys(run.key, run.progress.updates, 0)
        noise = [noise_of(NOISE, noise_key, jnp.int32(i), flat.size) for i in (1, 2, 3)]
        uphill = differences @ np.stack(noise) / (2 * 3)
        expected = unravel(flat + 0.1 * uphill)
        assert_near(after.learner.params, expected, 1e-6)

        after, metrics = bridge.advance(after, 1)
        assert metrics["fitness"].total[0] == 27 + 60  # of its own three pairs
        report = bridge.report()
    assert metrics["dropped"][0] == report.dropped >= 2
    # 1 + 8, and of later generations pairs that came fourth: 9 + 20 each.
    assert round(report.dropped * report.dropped_fitness) % 29 == 9
    assert "members too late" in "\n".join(report.lines())


@pytest.mark.slow
def test_a_recorded_run_with_a_quorum_is_repeated_in_one_thread(tmp_path):
    config = workers(3, 4, quorum=2)
    bridge = engine(config)
    bridge.record(tmp_path / "schedule.jsonl")
    ours, _ = advanced(bridge, 12)
    agent = agent_of(ENV.specs, policy="sampled")
    given = agent, ENV, NOISE, MEMBERS, STEPS
    record = tmp_path / "schedule.jsonl"
    again, _ = advanced(repeat_recorded(*given, config, record), 12)
    assert state_hash(ours) == state_hash(again)
    other = replace(config, parts=PartsConfig(4, 3))
    with pytest.raises(RecordError, match="and 3 of 4 are learned from"):
        advanced(repeat_recorded(*given, other, record), 12)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"num_members": 6}, "as many in each of the 2 parts: a multiple of 4, got 6"),
        ({"num_members": 7}, "num_members must be even"),
        ({"config": workers(2, quorum=3)}, "quorum must be at most .* 2, got 3"),
        ({"config": workers(0)}, "num_workers must be at least 1, got 0"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
    ],
)
def test_what_is_out_of_range_is_refused(given, told):
    usual = {"agent": agent_of(ENV.specs), "env": ENV, "noise": NOISE}
    usual |= {"num_members": 8, "max_steps": 5, "config": workers(2)}
    with pytest.raises(RefusedError, match=told):
        generations(**(usual | given))


def test_the_command_line_refuses_what_workers_have_not():
    def told(**settings):
        return "; ".join(Args(**settings).problems())

    parts = PartsConfig(num_parts=3)
    assert "as many for each part of 3: a multiple of 6" in told(
        topology="workers", parts=parts, num_envs=9
    )
    assert "parts.num_parts is for topology = workers or fleet" in told(parts=parts)
    server = WorkersConfig(store="server")
    assert "workers.store is for gradients" in told(topology="fleet", workers=server)
    assert not told(topology="workers", normalize=True)
    assert not told(topology="workers", env_name="LunarLander-v3")
    processes = {"env_name": "LunarLander-v3", "backend": "processes"}
    assert "start them anew for each member" in told(topology="workers", **processes)
