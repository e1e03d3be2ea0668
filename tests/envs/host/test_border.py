"""Random simulators through every adapter: right to the last bit, or refused with
environment, field and step."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_simulators as simulators

from jaxrl_par.bridge.acting import acting
from jaxrl_par.bridge.actor import Actor
from jaxrl_par.bridge.supervision import Activity
from jaxrl_par.envs.host.admission import BadRowError
from jaxrl_par.types import Agent


def check(seed):
    """Whether the simulator of that seed was refused."""
    plan = simulators.draw(seed)
    actions = simulators.random_actions(plan, np.random.default_rng(seed))
    env = simulators.adapted(plan, seed)
    try:
        rows = simulators.driven(env, actions)
        told = env.take_info()["success_rate"]
    except Exception as error:
        refused(plan, error)
        return True
    finally:
        env.close()
    # A value that is none of the space's may be in a step that is not shown.
    unseen = plan.fault in ("both: bounds", "both: nan")
    assert plan.struck is None or unseen, f"{plan.fault} came through"
    streams = simulators.expected(plan, actions, seed)
    simulators.check_right(plan, rows, streams, actions)
    simulators.check_told(plan, told, streams)
    return False


def refused(plan, error):
    told = " ".join([str(error), *getattr(error, "__notes__", [])])
    assert plan.struck is not None, f"refused what is right: {told}"
    row = getattr(error, "row", None)
    assert "sim" in told or row is not None, told
    if plan.struck == "raised":
        assert "out of fuel" in told and re.search(r"(step|row) \d+", told), told
    elif "outside the mask" not in told:  # which a reset changed
        assert isinstance(error, BadRowError), repr(error)
        # An observation of two parts may look like an observation and an info.
        assert plan.struck in told or plan.fault == "reset: alone", told
        assert re.search(r"environments? ", told), told
        assert re.search(r"(step|row) \d+", told), told


def sweep(seeds):
    count = 0
    for seed in seeds:
        try:
            count += check(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}: {simulators.draw(seed)}")
            raise
    return count / len(seeds)


def test_random_simulators_come_through_or_are_refused():
    assert 0.2 < sweep(range(120)) < 0.6


@pytest.mark.slow
def test_many_random_simulators_come_through_or_are_refused():
    assert 0.2 < sweep(range(1_000, 3_200)) < 0.6


def scripted(actions):
    """An agent that does these, row by row."""
    table = jnp.asarray(actions)

    def act(params, carry, step, key):
        return table[carry[0]], carry + 1, {}

    return Agent(
        init=lambda key, step: (),
        initial_carry=lambda num_envs: jnp.zeros(num_envs, jnp.int32),
        act=act,
        grad=lambda *args: None,
        apply=lambda state, grads: state,
        greedy=act,
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5_000, 5_024))
def test_random_simulators_behind_an_actor(seed):
    plan = simulators.draw(seed)
    actions = simulators.random_actions(plan, np.random.default_rng(seed))
    actor = Actor(
        0,
        lambda key: simulators.adapted(plan, seed),
        acting(scripted(actions), simulators.LENGTH, 1),
        simulators.LENGTH,
        jax.random.key(0),
        jax.local_devices(backend="cpu")[0],
        Activity("actor 0", 60.0),
        claim=lambda member, env: None,
    )
    try:
        actor.start(jax.random.key(0))
        trajectory = actor.unroll((), 0).trajectory
    except Exception as error:
        assert "actor 0" in str(error.__notes__)
        refused(plan, error)
        return
    finally:
        actor.close()
    assert plan.struck is None or plan.fault in ("both: bounds", "both: nan")
    rows = SimpleNamespace(
        steps=lambda: trajectory.steps,
        reward=trajectory.reward,
        discount=trajectory.discount,
    )
    streams = simulators.expected(plan, actions, seed)
    simulators.check_right(plan, rows, streams, actions)
    np.testing.assert_array_equal(trajectory.action, actions)
