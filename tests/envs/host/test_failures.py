"""How simulators fail, are closed, and are found to be one and the same."""

import threading

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from toy_simulators import Counter

from jaxrl_par.envs import make
from jaxrl_par.envs.host import from_callable, from_pure, from_vector
from jaxrl_par.envs.host.failures import SimulatorError, close_all
from jaxrl_par.envs.host.sharing import Owners, simulators
from jaxrl_par.errors import RefusedError
from jaxrl_par.random import key

ENDS = [SystemExit(0), GeneratorExit(), BaseException("odd")]


def broken(method, error):
    """A simulator that raises in a method."""

    def raises(self, *args, **kwargs):
        raise error

    return type("Broken", (Counter,), {method: raises})


def used(make_env):
    env = from_callable(make_env, 2, 0, name="sim")
    env.reset()
    env.step(np.zeros(2, int))


@pytest.mark.parametrize("error", ENDS, ids=repr)
@pytest.mark.parametrize("method", ["__init__", "reset", "step"])
def test_what_would_end_the_process_is_an_error_with_its_place(method, error):
    with pytest.raises(SimulatorError, match="may not end the process") as told:
        used(broken(method, error))
    assert told.value.__cause__ is error
    (note,) = told.value.__notes__
    assert "environment 0" in note and (method == "__init__" or "episode 0" in note)


@pytest.mark.parametrize("method", ["reset", "step"])
def test_a_vector_simulator_cannot_end_the_process(method):
    vector_env = SyncVectorEnv([Counter] * 2)

    def raises(*args, **kwargs):
        raise SystemExit

    setattr(vector_env, method, raises)
    env = from_vector(vector_env, 0, name="sim")
    with pytest.raises(SimulatorError) as told:
        env.reset()
        env.step(np.zeros(2, int))
    assert f"in {method} of sim" in told.value.__notes__[0]


def test_ctrl_c_in_the_main_thread_is_a_stop_and_in_others_an_error():
    interrupted = broken("step", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        used(interrupted)
    raised = []

    def work():
        try:
            used(interrupted)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert isinstance(raised[0], SimulatorError)


def test_a_stop_that_a_handler_of_signals_raises_is_none_of_the_simulator():
    class Interrupted(SystemExit):
        pass

    with pytest.raises(Interrupted):
        used(broken("step", Interrupted(75)))


# Closing --------------------------------------------------------------------------


class Closing(Counter):
    """Notes that it was closed; some raise."""

    def __init__(self, number, closed, errors):
        super().__init__()
        self.number, self.closed, self.errors = number, closed, errors

    def close(self):
        self.closed.append(self.number)
        if error := self.errors.get(self.number):
            raise error


@pytest.mark.parametrize("adapter", ["single", "vector"])
def test_all_are_closed_and_the_first_error_is_told(adapter):
    closed, errors = [], {1: ValueError("stuck"), 2: SystemExit(0)}
    envs = [Closing(i, closed, errors) for i in range(4)]
    made = iter(envs)
    if adapter == "single":
        env = from_callable(lambda: next(made), 4, 0, name="sim")
    else:
        env = from_vector(SyncVectorEnv([lambda: next(made)] * 4), 0, name="sim")
    with pytest.raises(ValueError, match="stuck") as error:
        env.close()
    assert closed == [0, 1, 2, 3]
    first, second = error.value.__notes__
    assert first == "in close of environment 1 of sim"
    assert second.startswith("close of environment 2 of sim failed too: Simulator")
    env.close()
    assert len(closed) == 4


def test_closing_does_not_hide_why_making_failed():
    closed = []
    made = iter([Closing(0, closed, {0: ValueError("stuck")})])

    def make_env():
        for env in made:
            return env
        raise OSError("no port")

    with pytest.raises(OSError, match="no port") as error:
        from_callable(make_env, 2, 0)
    assert closed == [0] and "closing failed: ValueError: stuck" in str(
        error.value.__notes__
    )


def test_nothing_to_close_is_no_error():
    close_all({})


# The same object ------------------------------------------------------------------


class Wrapper:
    """Not gymnasium's."""

    def __init__(self, inner):
        self.inner = inner
        self.observation_space = inner.observation_space
        self.action_space = inner.action_space

    def reset(self, **options):
        return self.inner.reset(**options)

    def step(self, action):
        return self.inner.step(action)

    def close(self):
        self.inner.close()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: env,
        Wrapper,
        gymnasium.wrappers.RecordEpisodeStatistics,
        lambda env: Wrapper(gymnasium.wrappers.TimeLimit(env, 3)),
    ],
)
def test_one_object_is_not_stepped_as_several(wrap):
    shared = Counter()
    with pytest.raises(RefusedError, match="environments 0 and 1 would be one object"):
        from_callable(lambda: wrap(shared), 3, 0)


def test_one_object_is_not_several_of_a_vector_environment():
    shared = Counter()
    makers = [Counter, lambda: shared, lambda: gymnasium.wrappers.TimeLimit(shared, 3)]
    with pytest.raises(RefusedError, match="environments 1 and 2 would be one object"):
        from_vector(SyncVectorEnv(makers), 0)


def test_what_is_no_environment_may_be_shared():
    class Named(Counter):
        settings = {"difficulty": 1}  # noqa: RUF012

        def __init__(self):
            super().__init__()
            self.env, self.shared = "production", self.settings

    from_callable(Named, 3, 0).close()


def test_hosts_are_one_where_what_they_step_is():
    owners, shared = Owners("actor", "no"), Counter()
    owners.claim(0, from_callable(lambda: shared, 1, 0))
    owners.claim(1, from_callable(Counter, 1, 0))
    with pytest.raises(RefusedError, match="actors 0 and 2 would be one object"):
        owners.claim(2, from_callable(lambda: shared, 1, 0))
    pure = make("CartPole-v1", 2)
    owners.claim(3, from_pure(pure, key(0)))
    owners.claim(4, from_pure(pure, key(0)))
    assert shared in list(simulators(from_callable(lambda: shared, 1, 0)))
