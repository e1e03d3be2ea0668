"""Environments that are stepped from here, with processes that are none."""

import jax
import numpy as np
import pytest
from fakes import HELLO, FakeCluster, slot

from jaxrl_par import random
from jaxrl_par.bridge.supervision import Activity
from jaxrl_par.envs.host.base import HostEnvironment
from jaxrl_par.errors import RefusedError
from jaxrl_par.fleet.asking import Seat
from jaxrl_par.fleet.cluster import LostError
from jaxrl_par.fleet.members import Members
from jaxrl_par.fleet.recipe import Recipe
from jaxrl_par.fleet.stepping_roles import Stepping, as_it_is
from jaxrl_par.types import Box, Discrete, TimeStep

LENGTH = 3


class Counting(HostEnvironment):
    """Shows how often it was stepped, and notes what it is told."""

    name, num_envs, max_episode_steps = "counting", 2, None
    observation_spec = Box((), np.dtype(np.float32), 0.0, 99.0)
    action_spec = Discrete(2)

    def __init__(self, seed):
        self.seed, self.steps, self.told, self.closed = seed, 0, [], 0

    def reset(self):
        return self._shown()

    def step(self, action):
        self.steps += 1
        self.told.append(action.tolist())
        if self.steps == 99:
            raise ZeroDivisionError("the arm is broken")
        return self._shown(), np.ones(2, np.float32), np.ones(2, np.float32)

    def plan(self, keys):
        self.told.append(keys)

    def snapshot(self):
        return {"steps": np.int32(self.steps)}

    def restore(self, snapshot):
        self.steps = int(snapshot["steps"])
        return self._shown()

    def close(self):
        self.closed += 1

    def _shown(self):
        flags = np.zeros(2, np.bool_)
        return TimeStep(np.full(2, self.steps, np.float32), flags, flags)


def members(make):
    arguments = make, Counting(0).specs, as_it_is
    return Members(Recipe(Stepping, arguments, None), "process 1 on here")


def seat(answers: dict, **options) -> tuple[Seat, FakeCluster]:
    place, there = slot(HELLO | answers)
    activity, device = Activity("actor 0", 60.0), jax.devices("cpu")[0]
    given = {"slot": place, "thread": 0, "unroll_length": LENGTH} | options
    return Seat(0, random.key(0), device, activity, **given), there


def far(**options):
    """Environments elsewhere, those that are there, and what was asked of them."""
    made = []

    def make(seed):
        made.append(Counting(seed))
        return made[-1]

    there = members(make)
    place, cluster = seat({"member": lambda *x: (there.do(*x),)}, **options)
    env = place.environment(random.key(1))
    return env, made, cluster.made[0].asked


def test_a_step_is_one_call_and_what_an_unroll_needs_goes_with_it():
    env, (there,), asked = far(keys_sent=lambda keys: "keys", key_sent=lambda _: 5)
    assert (env.name, env.num_envs, env.specs) == ("counting", 2, there.specs)
    assert there.seed == 5
    assert env.reset().obs.tolist() == [0, 0] and int(env.snapshot()["steps"]) == 0
    before = len(asked)
    for unroll in range(2):
        env.plan(jax.random.split(random.key(2), LENGTH))
        for row in range(LENGTH):
            step, reward, _ = env.step(np.array([row, unroll]))
            assert step.obs[0] == unroll * LENGTH + row + 1 and reward[0] == 1
        assert int(env.snapshot()["steps"]) == (unroll + 1) * LENGTH
        assert env.take_info() == {}
    assert len(asked) - before == 2 * LENGTH
    assert there.told == [
        *("keys", [0, 0], [1, 0], [2, 0]),
        *("keys", [0, 1], [1, 1], [2, 1]),
    ]


def test_new_environments_go_on_from_a_snapshot():
    env, (there,), _ = far()
    assert env.restore({"steps": np.int32(7)}).obs.tolist() == [7, 7]
    assert there.steps == 7 and int(env.snapshot()["steps"]) == 7
    env.close()
    env.close()
    assert there.closed == 1


def test_a_step_that_comes_twice_is_not_taken_twice():
    """Calls of Ray come at most once; should one not, environments stand where they
    were."""
    there = members(Counting)
    there.do(0, "start", 1, 0, 0)
    assert there.do(0, "work", 0, "reset").failed is None
    given = 0, "work", 1, "step", np.zeros(2), None, False
    first, again = there.do(*given), there.do(*given)
    assert first.result.step.obs.tolist() == [1, 1]
    assert "unroll 1 was asked for, and 2 is due" in again.failed.told
    other = there.do(0, "work", 2, "step", np.zeros(2), None, False)
    assert other.result.step.obs.tolist() == [2, 2]


def test_what_environments_raise_comes_from_there():
    env, (there,), _ = far()
    env.reset()
    there.steps = 98
    env.plan(jax.random.split(random.key(2), LENGTH))
    with pytest.raises(ZeroDivisionError, match="the arm is broken") as told:
        env.step(np.zeros(2))
    notes = "\n".join(told.value.__notes__)
    assert "in call 1 of the environments in actor 0, process 1 on here" in notes


def test_environments_that_are_lost_are_made_anew_in_another_process():
    replies = []
    there = [members(Counting), members(Counting)]

    def answered(*given):
        if not replies:
            return (there[0].do(*given),)
        return replies.pop()

    place, cluster = seat({"member": answered})
    env = place.environment(random.key(1))
    env.reset()
    replies.append(LostError("it died"))
    with pytest.raises(LostError, match="process 1 on here is lost: it died"):
        env.step(np.zeros(2))
    env.close()  # nobody is asked
    there.pop(0)
    again = place.environment(random.key(1))
    assert again.reset().obs.tolist() == [0, 0]
    assert [x.killed for x in cluster.made] == [True, False]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda seed: object(), "must give a HostEnvironment"),
        (lambda seed: Other(seed), "actions one of 2; counting has .* one of 3"),
    ],
)
def test_what_the_agent_was_not_made_for_is_refused(made, said):
    problem = members(made).do(0, "start", 1, 0, 0).failed
    with pytest.raises(RefusedError, match=said):
        raise problem.as_error()


class Other(Counting):
    action_spec = Discrete(3)
