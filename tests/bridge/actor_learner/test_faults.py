"""Whatever a simulator does, training goes on or ends clearly, and leaves nothing."""

import gc
import multiprocessing
import os
import re
import signal
import threading
import time
import traceback
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from scripted import (
    AGENT,
    EPISODE,
    LENGTH,
    NUM_ENVS,
    Scripted,
    SimulatorError,
    World,
    at,
    engine,
    hanging,
    raising,
    replacing,
    sleeping,
)
from warned import warned

from jaxrl_par.algorithms.impala import impala
from jaxrl_par.bridge.actor_learner import system
from jaxrl_par.bridge.actor_learner.learner import MeshLearner
from jaxrl_par.bridge.supervision import DeadlineError, HangError
from jaxrl_par.envs.host.admission import BadRowError
from jaxrl_par.envs.host.failures import SimulatorError as ExitOfSimulator
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import NetworkConfig, actor_critic

KEY = jax.random.key(0)
SCHEDULES = {
    "free": {},
    "bounded": {"max_lag": 1},
    "lockstep": {"schedule": "lockstep", "lag": 1},
    "in_turn": {"schedule": "lockstep", "lag": 0},
    "central": {"inference": "central"},
}
by_schedule = pytest.mark.parametrize("schedule", SCHEDULES)
# A machine that is busy may be as late as this for no fault of a simulator.
HANGS = {"env_timeout": 1.0, "close_seconds": 1.0}
RESTARTS = {"on_error": "restart"}
MANY = 1_000_000
"""Updates that no test waits for."""


ACTING = cache(system.acting)
CENTRAL = cache(system.compiled)
COMPILE = MeshLearner.compile
COMPILED = {}


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch):
    """All engines act and learn with the same compiled functions."""

    def compile_once(self, run, batches):
        leaves, tree = jax.tree.flatten((run, batches[0].trajectory))
        like = (tree, *(x.shape for x in leaves))
        if like in COMPILED:
            self._compiled, self._tally.compile_seconds = COMPILED[like], 1e-6
            return
        COMPILE(self, run, batches)
        COMPILED[like] = self._compiled

    monkeypatch.setattr(system, "acting", ACTING)
    monkeypatch.setattr(system, "compiled", CENTRAL)
    monkeypatch.setattr(MeshLearner, "compile", compile_once)


@contextmanager
def closing(engine):
    """Closes in the end; all is freed then, of whatever came back."""
    try:
        yield engine
    finally:
        engine.close()


def advance(engine, run=None, updates: int = 8):
    """The updates, one by one."""
    run = engine.init(KEY) if run is None else run
    for _ in range(updates):
        run, _ = engine.advance(run, 1)
    return run


def advance_until(threads, restarts: int):
    """Until so many were counted, and told: others go on while one hangs."""
    run = threads.init(KEY)
    while threads.report() is None or threads.report().restarts < restarts:
        run = advance(threads, run, 1)
    # The last one may have been counted after the update told what it knew.
    return advance(threads, run, 1)


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


def accounts_for_all_rows(engine, world) -> bool:
    """What was acted was learned from or is said to have been dropped; the last step of
    each actor may be neither, if it came back after the end."""
    report = engine.report()
    counted = sum(report.lags.values()) + report.dropped_rows
    return 0 <= world.rows - counted <= NUM_ENVS * len(world.made)


# An error of a simulator ----------------------------------------------------------


@pytest.mark.sample(2)
@by_schedule
@pytest.mark.parametrize("actor", [0, 1])
def test_the_learner_gets_the_error_of_a_step_with_its_traceback(
    world, schedule, actor
):
    error = SimulatorError("out of fuel")
    world.before = raising(at(9, actor=actor), error)
    with closing(engine(world, **SCHEDULES[schedule])) as threads:
        with pytest.raises(SimulatorError) as raised:
            advance(threads)
        assert raised.value is error
        frames = traceback.extract_tb(error.__traceback__)
        assert frames[-1].name == "before" and frames[-2].name == "step"
        # Step 9 is row 1 of the third unroll.
        assert notes(error) == (
            f"in actor {actor}, Scripted, step 9 (row 1 of unroll 2), generation 0"
        )
        assert threads.report().restarts == 0
    assert not world.unclosed() and accounts_for_all_rows(threads, world)


@pytest.mark.parametrize("kind", ["make", "reset"])
def test_the_owner_gets_the_error_of_making_an_environment(world, kind):
    error = SimulatorError("no such level")
    world.before = raising(at(0, kind, actor=1), error)
    with closing(engine(world)) as threads:
        with pytest.raises(SimulatorError) as raised:
            threads.init(KEY)
        assert raised.value is error
        assert notes(error).startswith(f"in {kind} of actor 1, ")
        assert traceback.extract_tb(error.__traceback__)[-1].name == "before"
        assert threads.report() is None
    assert not world.unclosed()


def test_an_error_is_there_long_before_patience_ends(world):
    world.before = raising(at(1))
    with closing(engine(world, patience=1000.0)) as threads:
        run = threads.init(KEY)
        started = time.monotonic()
        with pytest.raises(SimulatorError):
            advance(threads, run)
        assert time.monotonic() - started < 30


def test_the_same_error_comes_again_if_one_goes_on(world):
    world.before = raising(at(1))
    with closing(engine(world)) as threads:
        run = threads.init(KEY)
        for _ in range(2):
            with pytest.raises(SimulatorError):
                threads.advance(run, 1)


# What the boundary refuses --------------------------------------------------------


def observed(change):
    """A change of the observation, in a row or a reset."""

    def with_change(step, *paid):
        return step._replace(obs=change(step.obs.copy())), *paid

    return with_change


def put(value, *index):
    """The array with that element."""

    def change(x):
        x[index] = value
        return x

    return change


def paid(reward=lambda x: x, discount=lambda x: x):
    return lambda step, r, d: (step, reward(r.copy()), discount(d.copy()))


def flagged(name):
    def change(step, reward, discount):
        flag = getattr(step, name).copy()
        flag[1] = ~flag[1]
        return step._replace(**{name: flag}), reward, discount

    return change


# At step 9, that is row 1 of unroll 2; what it shows is row 2.
AT_ONCE, LATER = "step 9 (row 1 of unroll 2)", "step 10 (row 2 of unroll 2)"
BAD = {
    "nan": (observed(put(np.nan, 1, 2)), LATER,
            "observation of environment 1 in row 2, element [2] is not finite"),
    "infinity": (observed(put(np.inf, 0, 0)), LATER,
                 "observation of environment 0 in row 2, element [0] is not finite"),
    "range": (observed(put(10.5, 1, 0)), LATER,
              "observation of environment 1 in row 2, element [0] is outside"),
    "shape": (observed(lambda x: x[:, :2]), AT_ONCE, "observation has shape (2, 2)"),
    "dtype": (observed(lambda x: x.astype(np.float64)), AT_ONCE,
              "observation has dtype float64, not float32"),
    "structure": (observed(lambda x: {"obs": x}), AT_ONCE, "observation is PyTreeDef"),
    "reward_nan": (paid(reward=put(np.nan, 1)), AT_ONCE,
                   "reward of environment 1 in row 1 is not finite"),
    "reward_dtype": (paid(reward=np.float64), AT_ONCE, "reward has dtype float64"),
    "reward_shape": (paid(reward=lambda x: x[:, None]), AT_ONCE, "reward has shape"),
    "discount": (paid(discount=put(2.0, 0)), AT_ONCE,
                 "discount of environment 0 in row 1 is not in [0, 1]"),
    "discount_nan": (paid(discount=put(np.nan, 0)), AT_ONCE, "discount of environment"),
    "last": (flagged("last"), LATER[:0], "first of environment 1"),
    "first": (flagged("first"), LATER[:0], "first of environment 1"),
}  # fmt: skip


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_refused_with_field_environment_and_step(world, name):
    change, step, what = BAD[name]
    world.after = replacing(at(9, actor=1), change)
    with closing(engine(world)) as threads:
        with pytest.raises(BadRowError, match=re.escape(what)) as error:
            advance(threads)
        assert f"in actor 1, Scripted, {step}" in notes(error.value)
    learned = threads.report().lags
    # Nothing of that unroll, the third of actor 1, was learned from.
    assert sum(learned.values()) < world.rows
    assert accounts_for_all_rows(threads, world)


def test_a_bad_first_observation_is_refused(world):
    world.after = replacing(at(0, "reset", actor=1), observed(put(np.nan, 1, 2)))
    with closing(engine(world)) as threads, pytest.raises(BadRowError) as error:
        advance(threads)
    assert "environment 1 in row 0, element [2]" in str(error.value)
    assert "step 0 (row 0 of unroll 0)" in notes(error.value)


def test_bounds_need_not_be_checked(world):
    world.after = replacing(at(9), observed(put(10.5, 1, 0)))
    with closing(engine(world, check_bounds=False)) as threads:
        advance(threads)
    assert threads.report().restarts == 0


# Restarts -------------------------------------------------------------------------


FAULTS = {
    "raise": ("before", raising(at(9))),
    "nan": ("after", replacing(at(9), observed(put(np.nan, 1, 2)))),
    "dtype": ("after", replacing(at(9), paid(reward=np.float64))),
}


@pytest.mark.sample(2)
@by_schedule
@pytest.mark.parametrize("fault", FAULTS)
def test_a_restart_is_counted_with_the_rows_that_it_costs(world, schedule, fault):
    setattr(world, *FAULTS[fault])
    config = SCHEDULES[schedule] | RESTARTS
    with (
        closing(engine(world, **config)) as threads,
        warned("actor 0: made its environments anew after"),
    ):
        advance(threads)
        report = threads.report()
        assert report.restarts == 1 and report.updates == 8
        # Of the unroll in progress; NaN is found when it is complete.
        assert report.dropped_rows == (LENGTH if fault == "nan" else 1) * NUM_ENVS
    assert [(x.actor, x.life) for x in world.made if x.life] == [(0, 1)]
    # The broken one was closed at once, and all in the end; each of them once.
    assert {env.closed for env in world.made} == {1}
    assert accounts_for_all_rows(threads, world)


def test_a_restarted_actor_goes_on_with_its_unroll_in_lockstep(world):
    world.before = raising(at(9))
    with closing(engine(world, **SCHEDULES["in_turn"], **RESTARTS)) as threads:
        with warned():
            run = advance(threads, updates=6)
        states = run.local.actors
        assert [int(x.unroll) for x in states] == [6, 6]
        assert [int(x.generation) for x in states] == [1, 0]
    # New environments from unroll 2 of actor 0 on; the seventh may have begun.
    steps = {(x.actor, x.life): x.steps for x in world.made}
    assert steps[0, 0] == 9
    assert 4 <= steps[0, 1] / LENGTH <= 5 and 6 <= steps[1, 0] / LENGTH <= 7


@pytest.mark.parametrize("kind", ["step", "make", "reset"])
def test_after_so_many_restarts_the_next_error_is_raised(world, kind):
    always = at(0, kind, life=None)

    def before(call):
        if call.life > 0 or kind == "step":
            raising(always)(call)
        raising(at(5))(call)

    world.before = before
    with closing(engine(world, **RESTARTS, max_restarts=3)) as threads:
        with (
            warned() as told,
            pytest.raises(SimulatorError) as error,
        ):
            advance(threads, updates=100)
        assert threads.report().restarts == 3
        assert len(told) == 3
    assert "actor 0, Scripted, step " in notes(error.value)
    assert "generation 3" in notes(error.value)
    assert not world.unclosed()


def test_restarts_are_counted_for_each_actor(world):
    def before(call):
        raising(at(1, life=0))(call)
        raising(at(2, life=0, actor=1))(call)

    world.before = before
    with closing(engine(world, **RESTARTS, max_restarts=1)) as threads:
        with warned():
            advance(threads)
        assert threads.report().restarts == 2


def test_the_default_is_to_raise(world):
    world.before = raising(at(1))
    with closing(engine(world, max_restarts=5)) as threads:
        with pytest.raises(SimulatorError):
            advance(threads)
        assert threads.report().restarts == 0


@pytest.mark.parametrize("kind", ["make", "reset", "step"])
@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), GeneratorExit()])
def test_a_simulator_cannot_end_the_process(world, kind, error):
    world.before = raising(at(9 if kind == "step" else 0, kind, actor=1), error)
    with closing(engine(world)) as threads:
        with pytest.raises(ExitOfSimulator, match="may not end the process") as told:
            advance(threads)
        assert f"in {kind} of actor 1" in notes(told.value) or kind == "step"
        assert "actor 1" in notes(told.value)


def test_a_simulator_that_exits_is_made_anew_where_that_was_asked_for(world):
    world.before = raising(at(9), SystemExit(0))
    with (
        closing(engine(world, **RESTARTS)) as threads,
        warned("made its environments anew after SimulatorError"),
    ):
        advance(threads)
        assert threads.report().restarts == 1


def test_an_environment_that_is_not_closed_at_the_end_is_worth_a_warning(world):
    world.before = raising(lambda call: (call.kind, call.actor) == ("close", 1))
    threads = engine(world)
    advance(threads)
    with warned("actor 1: closing its environments failed with SimulatorError"):
        threads.close()
    assert not world.unclosed()


def test_two_actors_cannot_have_one_environment(world):
    shared = Scripted(world, 0, 0)
    world.make = lambda key: shared
    with (
        closing(engine(world)) as threads,
        pytest.raises(RefusedError, match="would be one object, a Scripted"),
    ):
        advance(threads)


def test_what_is_no_environment_is_refused(world):
    world.make = lambda key: "CartPole-v1"
    with (
        closing(engine(world)) as threads,
        pytest.raises(
            RefusedError, match=r"must give a HostEnvironment, .* 'CartPole-v1'"
        ),
    ):
        advance(threads)


def test_a_record_stays_where_it_was_asked_for(world, tmp_path, monkeypatch):
    """Also where a simulator changes the directory of the process."""
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    world.before = lambda call: os.chdir(elsewhere)
    with closing(engine(world)) as threads:
        threads.record(Path("schedule.jsonl"))
        advance(threads)
    assert (tmp_path / "schedule.jsonl").stat().st_size


def test_an_environment_that_cannot_even_be_closed_is_worth_a_warning(world):
    def before(call):
        raising(at(9))(call)
        if call.kind == "close":
            raise SimulatorError("stuck")

    world.before = before
    threads = engine(world, **RESTARTS)
    with warned("closing its environments failed with Sim"):
        advance(threads)
        assert threads.report().restarts == 1
        threads.close()
    assert not world.unclosed()


# Hangs ----------------------------------------------------------------------------


@pytest.mark.slow
@by_schedule
def test_a_step_that_hangs_is_an_error_that_names_it(world, schedule):
    world.before = hanging(world, at(9, actor=1))
    with closing(engine(world, **HANGS, **SCHEDULES[schedule])) as threads:
        with pytest.raises(HangError, match="actor 1: step has not returned for 1 s"):
            advance(threads, updates=MANY)
        assert threads.report().abandoned == []
    # Close did not wait for it for ever, and says what it left.
    assert threads.report().abandoned == ["actor 1"]
    assert [env.actor for env in world.unclosed()] == [1]


@pytest.mark.slow
def test_the_error_of_a_hang_has_actor_environment_and_step(world):
    world.before = hanging(world, at(9))
    with closing(engine(world, **HANGS)) as threads, pytest.raises(HangError) as error:
        advance(threads, updates=MANY)
    assert notes(error.value) == (
        "in actor 0, Scripted, step 9 (row 1 of unroll 2), generation 0"
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["make", "reset"])
@pytest.mark.parametrize("policy", [{}, RESTARTS])
def test_an_environment_that_does_not_start_is_an_error_that_names_it(
    world, kind, policy
):
    world.before = hanging(world, at(0, kind, actor=1))
    with closing(engine(world, **HANGS, **policy)) as threads:
        with pytest.raises(HangError, match=f"actor 1: {kind} has not") as error:
            threads.init(KEY)
        assert "in actor 1, " in notes(error.value)


@pytest.mark.slow
def test_what_comes_back_too_late_frees_itself(world):
    # Also an environment that was still being made when nobody waited any more.
    def before(call):
        hanging(world, at(0, "make", actor=1))(call)
        hanging(world, at(0, "reset", actor=2))(call)

    world.before = before
    threads = engine(world, **HANGS, num_actors=3)
    with pytest.raises(HangError):
        threads.init(KEY)
    threads.close()
    assert {env.actor for env in world.unclosed()} == {2}
    world.released.set()
    wait_for(lambda: len(world.made) == 3 and not world.unclosed())


def wait_for(ready) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@by_schedule
def test_an_actor_that_hangs_is_replaced(world, schedule):
    world.before = hanging(world, at(9))
    config = HANGS | RESTARTS | SCHEDULES[schedule]
    with closing(engine(world, **config)) as threads:
        with warned("anew after HangError: actor 0: step"):
            run = advance_until(threads, restarts=1)
        advance(threads, run)
        report = threads.report()
        assert (report.restarts, report.abandoned) == (1, ["actor 0"])
        assert report.dropped_rows == NUM_ENVS
        assert [x.life for x in world.made if x.actor == 0] == [0, 1]
    # The one that took its place was freed, and the one that hangs left.
    assert [(x.actor, x.life) for x in world.unclosed()] == [(0, 0)]
    assert threads.report().abandoned == ["actor 0"]


@pytest.mark.slow
@pytest.mark.parametrize("then", ["goes on", "raises"])
def test_an_actor_that_was_replaced_does_nothing_when_it_comes_back(world, then):
    def before(call):
        if at(9)(call):
            world.hang()
            if then == "raises":
                raise SimulatorError("too late")

    world.before = before
    config = HANGS | RESTARTS | SCHEDULES["bounded"] | {"max_restarts": 1}
    with closing(engine(world, **config)) as threads:
        with warned():
            run = advance_until(threads, restarts=1)
        run = advance(threads, run)
        world.released.set()
        late = next(x for x in world.made if (x.actor, x.life) == (0, 0))
        wait_for(lambda: late.closed)
        steps = late.steps
        run = advance(threads, run, updates=20)
        assert steps == late.steps == (10 if then == "goes on" else 9)
        assert threads.report().restarts == 1
    assert threads.report().abandoned == [] and not world.unclosed()


@pytest.mark.slow
def test_a_successor_that_hangs_while_it_is_made_is_replaced_too(world):
    hung = []

    def before(call):
        hanging(world, at(9))(call)
        # The next one after it is of life 1 as well: that one is not there.
        if at(0, "make", life=1)(call) and not hung:
            hung.append(call)
            world.hang()

    world.before = before
    config = HANGS | RESTARTS | SCHEDULES["bounded"]
    with closing(engine(world, **config)) as threads:
        with warned():
            run = advance_until(threads, restarts=2)
        assert threads.report().abandoned == ["actor 0", "actor 0, generation 1"]
        # They come back, and do not take part.
        world.released.set()
        wait_for(lambda: sum(x.closed for x in world.made) == 2)
        advance(threads, run, updates=20)
    assert not world.unclosed() and threads.report().abandoned == []


@pytest.mark.slow
def test_after_so_many_replacements_a_hang_is_raised(world):
    world.before = hanging(world, at(3, life=None))
    config = HANGS | RESTARTS | {"max_restarts": 2}
    with closing(engine(world, **config)) as threads:
        with warned(), pytest.raises(HangError) as error:
            advance(threads, updates=MANY)
        assert threads.report().restarts == 2
    assert "generation 2" in notes(error.value)
    assert len(threads.report().abandoned) == 3


@pytest.mark.slow
def test_closing_that_hangs_before_a_restart_is_noticed(world):
    def before(call):
        raising(at(9))(call)
        hanging(world, at(9, "close"))(call)

    world.before = before
    with (
        closing(engine(world, **HANGS, **RESTARTS)) as threads,
        warned("actor 0: close has not returned"),
    ):
        advance_until(threads, restarts=2)


@pytest.mark.slow
def test_slow_is_not_hung(world):
    world.before = sleeping(0.2, lambda call: call.kind == "step" and call.step % 9 < 2)
    with closing(engine(world, env_timeout=60.0, patience=60.0)) as threads:
        advance(threads, updates=4)
        assert threads.report().restarts == 0


@pytest.mark.slow
def test_a_learner_that_waits_too_long_says_what_actors_do(world):
    world.before = hanging(world, at(9))
    with closing(engine(world, num_actors=1, patience=3.0)) as threads:
        with pytest.raises(DeadlineError, match=r"Now: .*actor 0: step") as error:
            advance(threads)
        assert not isinstance(error.value, HangError)


@pytest.mark.slow
def test_a_slow_owner_is_no_deadline_for_actors(world):
    with closing(engine(world, patience=2.5)) as threads:
        run = threads.init(KEY)
        run, _ = threads.advance(run, 1)
        time.sleep(3.5)  # as an evaluation does
        advance(threads, run, updates=3)


# What is left ---------------------------------------------------------------------


def census():
    """Threads, open files, child processes and shared memory."""
    gc.collect()
    return (
        set(threading.enumerate()),
        len(os.listdir("/proc/self/fd")),
        [process.pid for process in multiprocessing.active_children()],
        sorted(os.listdir("/dev/shm")),
    )


@pytest.fixture(scope="module")
def warmed():
    """Whatever jax opens once, it has opened."""
    world = World()
    with closing(engine(world)) as threads:
        ACTING(AGENT, LENGTH, 1)
        advance(threads, updates=2)


def never_used(threads, world):
    del world
    threads.close()


def initialised(threads, world):
    del world
    threads.init(KEY)


def resumed(threads, world):
    with warned("cannot be brought back"):
        threads.resume(threads.init(KEY))
    assert [env.closed for env in world.made] == [1, 1, 0, 0]


def advanced(threads, world):
    del world
    advance(threads, updates=2)


def failed(threads, world):
    world.before = raising(at(9))
    with pytest.raises(SimulatorError):
        advance(threads)


def failed_to_start(threads, world):
    world.before = raising(at(0, "reset", actor=1))
    with pytest.raises(SimulatorError):
        threads.init(KEY)


def interrupted(threads, world):
    """Ctrl-C in the owner, in the middle of an advance."""

    def before(call):
        if call[:2] == ("step", 0) and call.step == 9:
            threads._supervisor.fail(KeyboardInterrupt())

    world.before = before
    with pytest.raises(KeyboardInterrupt):
        advance(threads)


STATES = [
    never_used,
    initialised,
    resumed,
    advanced,
    failed,
    failed_to_start,
    interrupted,
]


@pytest.mark.sample(1)
@by_schedule
@pytest.mark.parametrize("state", STATES)
@pytest.mark.usefixtures("warmed")
def test_closing_leaves_nothing_whatever_the_state(world, schedule, state):
    before = census()
    threads = engine(world, **SCHEDULES[schedule])
    state(threads, world)
    started = time.monotonic()
    threads.close()
    assert time.monotonic() - started < 15  # 5 on a machine that is not busy
    threads.close()
    assert census() == before
    assert not world.unclosed()


def test_closing_does_not_wait_for_the_rest_of_a_slow_unroll(world):
    world.before = sleeping(
        1.0, lambda call: call.kind == "step" and call.step >= LENGTH
    )
    threads = engine(world)
    advance(threads, updates=1)
    threads.close()
    # An unroll takes 4 s, a step 1 s, and close waits for 3 s.
    assert threads.report().abandoned == [] and not world.unclosed()


@pytest.mark.slow
def test_closing_does_not_wait_for_ever_for_an_environment_to_close(world):
    world.before = hanging(world, at(0, "close", actor=1))
    threads = engine(world)
    threads.init(KEY)
    started = time.monotonic()
    threads.close()
    assert time.monotonic() - started < 15
    assert {env.closed for env in world.made} == {1}


def cycle(world, schedule):
    threads = engine(world, **SCHEDULES[schedule])
    run = threads.init(KEY)
    run, _ = threads.advance(run, 1)
    threads.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("cycles", [40, 1000])
@pytest.mark.usefixtures("warmed")
def test_starts_and_stops_leave_nothing(cycles):
    names = list(SCHEDULES)
    worlds = [World() for _ in range(cycles)]
    cycle(World(), "free")
    before = census()
    for i, world in enumerate(worlds):
        cycle(world, names[i % len(names)])
    assert census() == before
    assert all(env.closed == 1 for world in worlds for env in world.made)
    assert sum(len(world.made) for world in worlds) == 2 * cycles


# A real agent ---------------------------------------------------------------------


@pytest.mark.slow
def test_a_failing_simulator_ends_impala_as_clearly(world):
    network = actor_critic(
        Scripted.observation_spec, Scripted.action_spec, NetworkConfig(widths=(4,))
    )
    world.before = raising(at(EPISODE + 3, actor=1))
    with (
        closing(
            engine(world, impala(network, optax.sgd(0.1)), num_actors=3)
        ) as threads,
        pytest.raises(SimulatorError) as error,
    ):
        advance(threads)
    assert "actor 1, Scripted, step 9" in notes(error.value)
    assert not world.unclosed()


# What is left of a run, and of an engine --------------------------------------------


@pytest.mark.sample(1)
@by_schedule
def test_the_run_is_whole_after_the_last_update_that_was_made(world, schedule):
    error = SimulatorError("out of fuel")
    whole = advance(engine(World(), **SCHEDULES[schedule]), updates=6)
    world.before = raising(at(17, actor=1), error)
    with closing(engine(world, **SCHEDULES[schedule])) as threads:
        with pytest.raises(SimulatorError):
            threads.advance(threads.init(KEY), MANY)
        run, metrics = threads.rescue()
        assert threads.rescue() is None
    updates = int(run.progress.updates)
    assert {len(x) for x in jax.tree.leaves(metrics)} == {updates} and updates >= 1
    assert sum(x.unroll for x in run.local.actors) >= updates
    # It goes on from there, with other simulators: in lockstep as if nothing had been.
    with closing(engine(World(), **SCHEDULES[schedule])) as again:
        again.init(KEY)
        again.resume(run)
        run = advance(again, run, max(6 - updates, 1))
    if schedule == "in_turn":
        assert updates == 4
        np.testing.assert_array_equal(run.learner.params, whole.learner.params)


def test_what_an_update_used_up_is_not_rescued(world, monkeypatch):
    with closing(engine(world)) as threads:
        run, _ = threads.advance(threads.init(KEY), 1)
        assert threads.rescue() is None

        def fails(self, run, batch):
            jax.tree.map(lambda x: x.delete(), run)
            raise RuntimeError("out of memory")

        monkeypatch.setattr(MeshLearner, "update", fails)
        with pytest.raises(RuntimeError, match="out of memory"):
            threads.advance(run, 1)
        assert threads.rescue() is None


def actor_threads() -> list[str]:
    return [x.name for x in threading.enumerate() if x.name.startswith("actor")]


def test_an_engine_that_is_forgotten_ends_its_threads(world):
    """As when a cell of a notebook runs a second time."""
    threads = engine(world)
    run = advance(threads, updates=1)
    assert len(actor_threads()) == 2
    with pytest.raises(RuntimeError, match="make another engine"):
        threads.init(KEY)
    threads.advance(run, 1)
    assert len(actor_threads()) == 2
    threads = engine(world)
    gc.collect()
    advance(threads, updates=1)
    assert len(actor_threads()) == 2
    del threads
    gc.collect()
    assert not actor_threads() and not world.unclosed()
    with engine(world) as threads:
        advance(threads, updates=1)
    assert not actor_threads() and not world.unclosed()


def test_an_interrupted_advance_leaves_no_thread(world):
    threads = engine(world)

    def before(call):
        if call.kind == "step" and call.step == 9 and call.actor == 1:
            signal.raise_signal(signal.SIGINT)

    world.before = before
    # A shell that runs the tests in the background has them ignore it.
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            threads.advance(threads.init(KEY), MANY)
    finally:
        signal.signal(signal.SIGINT, ignored)
    assert not actor_threads() and not world.unclosed()
    # A rerun of the cell has those of its own only.
    world.before = lambda call: None
    with engine(world) as threads:
        advance(threads, updates=1)
