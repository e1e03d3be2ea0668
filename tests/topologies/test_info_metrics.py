"""What simulators tell reaches the metrics, whoever steps them."""

import jax
import numpy as np
import pytest
from toy_workers import TOY

from jaxrl_par.envs.host import from_callable
from jaxrl_par.topologies import threads, workers
from jaxrl_par.topologies.sharded import data_mesh

spaces = pytest.importorskip("gymnasium").spaces
T = 6


class Simulator:
    """Ends after so many steps, and tells in each how many there were."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, length, success):
        self.length, self.success, self.time = length, success, 0

    def reset(self, *, seed=None):
        self.time = 0
        return np.zeros(1, np.float32), {"time": 1000}

    def step(self, action):
        self.time += 1
        info = {"time": self.time} | self.success
        return np.zeros(1, np.float32), 1.0, self.time == self.length, False, info

    def close(self):
        """Has nothing to free."""


def make_env(key):
    made = iter([Simulator(2, {"success": False}), Simulator(3, {"success": True})])
    return from_callable(lambda: next(made), 2, 0, info_metrics=["time"])


def make_silent(key):
    return from_callable(lambda: Simulator(2, {}), 2, 0)


def with_threads(make=make_env, repeated=None):
    config = threads.ThreadsConfig(num_actors=2)
    parts = TOY, make, T, config, data_mesh(1)
    if repeated:
        return threads.repeat_recorded(*parts, repeated)
    return threads.threads(*parts)


def with_workers(make=make_env, repeated=None):
    config = workers.WorkersConfig(num_workers=2)
    if repeated:
        return workers.repeat_recorded(TOY, make, T, config, repeated)
    return workers.workers(TOY, make, T, config)


def measured(engine, record):
    if record is not None:
        engine.record(record)
    try:
        run = engine.init(jax.random.key(0))
        metrics = []
        for _ in range(2):
            run, new = engine.advance(run, 4)
            metrics.append(new)
    finally:
        engine.close()
    return jax.tree.map(lambda *xs: np.concatenate(xs), *metrics)


@pytest.mark.slow
@pytest.mark.parametrize("made", [with_threads, with_workers])
def test_they_are_means_over_the_episodes_of_each_update(made, tmp_path):
    """The time of a last step is the length of the episode."""
    record = tmp_path / "schedule.jsonl"
    metrics = measured(made(), record)
    assert "info_time" in metrics and metrics["info_time"].total.shape == (8,)
    for ours, known in zip(
        metrics["info_time"], metrics["episode_length"], strict=True
    ):
        np.testing.assert_array_equal(ours, known)
    rate, length = metrics["success_rate"], metrics["episode_length"]
    np.testing.assert_array_equal(rate.count, length.count)
    np.testing.assert_array_equal(rate.total, length.total - 2 * length.count)
    again = measured(made(repeated=record), None)
    jax.tree.map(np.testing.assert_array_equal, again["success_rate"], rate)


@pytest.mark.sample(1)
@pytest.mark.parametrize("made", [with_threads, with_workers])
def test_no_success_rate_where_none_is_told(made):
    metrics = measured(made(make_silent), None)
    assert not [name for name in metrics if "success" in name or "info" in name]
