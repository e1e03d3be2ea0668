"""What simulators give to Gymnasium's vector environments, before these cast it."""

import multiprocessing
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from toy_simulators import Exits, Returns

from jaxrl_par.envs.host import from_vector, make
from jaxrl_par.envs.host.admission import BadRowError
from jaxrl_par.envs.host.apart import Admitted, _sendable
from jaxrl_par.envs.host.failures import SimulatorError

WRONG = {
    "image": (0, np.full((2, 2, 1), 300), "cannot be held by uint8 with bounds.*: 300"),
    "reward": (1, "1.5", "reward of .* is a str, '1.5', and must be a number"),
    "terminated": (2, "False", "terminated of .* is a str, 'False', and must be"),
    "truncated": (3, None, "truncated of .* is a NoneType, None, and must be"),
    "info": (4, None, "step of .* returned None for info"),
}


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("name", WRONG)
def test_what_a_vector_environment_would_cast_is_refused(mode, name):
    index, value, why = WRONG[name]
    makers = [Returns, lambda: Returns(index, value)]
    env = from_vector(SyncVectorEnv(makers, autoreset_mode=mode), 0, name="sim")
    env.reset()
    env.step(np.zeros(2, np.int32))
    with pytest.raises(BadRowError, match=why) as error:
        env.step(np.zeros(2, np.int32))
    assert "environment 1 of sim, episode 0, step 2" in str(error.value)
    env.close()


def test_what_is_right_comes_through_in_the_dtypes_of_the_space():
    buffer = np.full((2, 2, 1), 7, np.int64)
    env = Admitted(Returns(0, buffer), 0, "sim")
    obs, _ = env.reset(seed=0)
    assert obs.dtype == np.uint8 and not obs.any()
    env.step(0)
    obs, reward, *ends, info = env.step(0)
    buffer[:] = 9
    assert obs.dtype == np.uint8 and (obs == 7).all()
    assert (reward, ends, info) == (1.0, [False, False], {})
    assert env.spec is None and env.index == 0  # what else it has


class UnknownError(Exception):
    def __init__(self, one, other):
        super().__init__(one + other)


def test_errors_of_all_classes_can_be_sent():
    error = UnknownError("out of ", "fuel")
    error.add_note("in environment 1")
    told = pickle.loads(pickle.dumps(_sendable(error)))
    assert type(told) is SimulatorError
    assert str(told) == "UnknownError: out of fuel (in environment 1)"
    assert type(_sendable(BadRowError("reward"))) is BadRowError


@pytest.fixture
def registered():
    """Registers a simulator; returns its name."""
    names = []

    def register(entry_point, **kwargs):
        names.append(f"Mine{len(names)}-v0")
        gymnasium.register(names[-1], entry_point, kwargs=kwargs)
        return names[-1]

    yield register
    for name in names:
        del gymnasium.registry[name]


@pytest.mark.parametrize(
    "where", ["here", "in its process", pytest.param("dies", marks=pytest.mark.slow)]
)
def test_a_constructor_cannot_end_the_process(registered, where):
    name = registered(Exits, where=where)
    with pytest.raises((SimulatorError, ConnectionError, EOFError)) as error:
        make(name, 2, 0, backend="processes")
    told = " ".join([str(error.value), *error.value.__notes__])
    assert f"in make of {name}" in told
    if where == "dies":
        assert ": 3}" in told
    else:
        assert "SystemExit(0)" in told and "in make of environment" in told
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_processes_refuse_what_would_be_cast(registered, name):
    index, value, why = WRONG[name]
    env = make(registered(Returns, index=index, value=value), 2, 0, backend="processes")
    try:
        env.reset()
        env.step(np.zeros(2, np.int32))
        with pytest.raises(BadRowError, match=why) as error:
            env.step(np.zeros(2, np.int32))
        assert "of Mine0-v0, episode 0, step 2" in str(error.value)
    finally:
        env.close()
