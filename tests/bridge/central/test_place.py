"""A place answers each request once, and what pads a batch changes nothing."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.bridge import acting as local
from jaxrl_par.bridge.central.compiled import compiled
from jaxrl_par.bridge.central.config import CentralConfig
from jaxrl_par.bridge.central.place import Ended, Place, ProtocolError, Request
from jaxrl_par.types import Agent, TimeStep, Trajectory

ACTORS, NUM_ENVS, LENGTH = 3, 2, 3
ROOT = jax.random.key(5)


def act(params, carry, step, key):
    """Memory is the sum of observations, and the action is what is remembered."""
    total = carry + step.obs
    drawn = jax.random.uniform(key, step.obs.shape)
    return total * params, total, {"drawn": drawn, "params": params + 0 * drawn}


def complete(params, carry, trajectory):
    told = jnp.broadcast_to(carry, trajectory.reward.shape)
    return trajectory.extras | {"after": told, "completed": told * 0 + params}


AGENT = Agent(
    init=lambda key, step: None,
    # Each environment of each actor begins with another memory, as ladders do.
    initial_carry=lambda num_envs: jnp.zeros(num_envs),
    act=act,
    grad=lambda *arguments: None,
    apply=lambda *arguments: None,
    greedy=act,
    complete=complete,
)
COUNTING = AGENT._replace(
    act=lambda params, carry, step, key: act(
        params, carry, step._replace(obs=step.obs + 1000.0), key
    )
)
"""Its memory counts rows too, those of zeros among them."""
LADDER = AGENT._replace(initial_carry=lambda num_envs: 100.0 * jnp.arange(num_envs))


@cache
def functions(agent, config):
    acting = local.acting(agent, LENGTH, ACTORS)
    return compiled(agent, acting, LENGTH, ACTORS, config), acting


def place(agent=AGENT, **options):
    config = CentralConfig(**options)
    slots = config.max_batch or ACTORS
    given = functions(agent, config)
    return Place(*given, LENGTH, ACTORS, slots, ROOT, jax.devices("cpu")[0])


def request(obs, row=0, actor=0, unroll=0, incarnation=0, version=None):
    flags = np.zeros(NUM_ENVS, bool)
    step = TimeStep(np.full(NUM_ENVS, obs, np.float32), flags, flags)
    return Request(actor, incarnation, unroll, row, step, version)


def asked(where, *requests, version=7, params=1.0):
    """The memory that each answer tells of, of the first environment."""
    answers = where.answer(requests, version, jnp.float32(params))
    return [float(answer.action[0]) for answer in answers]


def ended(where, actor=0, unroll=0, incarnation=0):
    """The rest of an unroll of nothing but zeros."""
    zeros = np.zeros((LENGTH + 1, NUM_ENVS), np.float32)
    steps = TimeStep(zeros, zeros > 0, zeros > 0)
    rows = (zeros[:-1],) * 3
    return where.end(
        Ended(actor, incarnation, unroll, Trajectory(steps, *rows, {}, ()))
    )


@pytest.mark.sample(1)
@pytest.mark.parametrize("rows", ["joint", "apart"])
def test_a_request_that_comes_twice_steps_memory_once(rows):
    where = place(rows=rows)
    assert asked(where, request(1.0)) == [1.0]
    assert asked(where, request(2.0, row=1)) == [3.0]
    # Late, and asked again; even if newer parameters are there.
    assert asked(where, request(2.0, row=1), version=8, params=9.0) == [3.0]
    assert where.answer([request(2.0, row=1)], 8, None)[0].version == 7
    assert asked(where, request(0.0, row=2)) == [3.0]


def test_one_that_comes_twice_does_not_hold_up_the_others():
    where = place()
    asked(where, request(1.0), request(10.0, actor=1))
    again = asked(where, request(1.0), request(20.0, actor=1, row=1))
    assert again == [1.0, 30.0]


def test_an_environment_that_starts_again_has_fresh_memory():
    where = place()
    asked(where, request(2.0))
    assert asked(where, request(3.0, row=1)) == [5.0]
    assert asked(where, request(1.0, incarnation=1)) == [1.0]
    # At the same unroll, and of the others nothing has changed.
    assert asked(where, request(1.0, row=1, incarnation=1)) == [2.0]


def test_fresh_memory_is_the_actors_share_of_that_of_all():
    where = place(LADDER)
    assert asked(where, request(0.0), request(0.0, actor=2)) == [0.0, 400.0]
    assert asked(where, request(0.0, actor=1)) == [200.0]


def test_an_incarnation_goes_on_with_the_memory_that_was_saved():
    where = place()
    where.restore(1, 4, np.full(NUM_ENVS, 40.0, np.float32))
    assert asked(where, request(2.0, actor=1, incarnation=4, unroll=9)) == [42.0]
    # That of another incarnation is none of this one's.
    assert asked(where, request(2.0, actor=1, incarnation=5, unroll=9)) == [2.0]


@pytest.mark.parametrize(
    "wrong",
    [
        request(0.0, row=2),
        request(0.0, unroll=1),
        request(0.0, row=1, incarnation=1),
    ],
)
def test_a_request_out_of_order_is_an_error(wrong):
    where = place()
    asked(where, request(1.0))
    with pytest.raises(ProtocolError, match=r"actor 0 asks for .* is at \("):
        asked(where, wrong)
    assert asked(where, request(2.0, row=1)) == [3.0]


def test_an_incarnation_that_was_replaced_is_not_answered():
    where = place()
    asked(where, request(1.0, incarnation=1))
    with pytest.raises(ProtocolError):
        asked(where, request(1.0, incarnation=0, row=1))


@pytest.mark.sample(2)
@pytest.mark.parametrize("options", [{}, {"rows": "apart"}, {"max_batch": 2}])
def test_what_pads_a_batch_changes_no_memory_and_no_extras(options):
    """Whatever others do meanwhile, alone or together."""
    together = place(COUNTING, **options)
    calls = [[(0, 0), (1, 0)], [(2, 0)], [(1, 1)], [(0, 1)], [(0, 2)], [(2, 1)]]
    for call in [*calls, [(1, 2)], [(2, 2)]]:
        asked(together, *(request(row + 1.0, row, actor) for actor, row in call))
    for actor in range(ACTORS):
        alone = place(COUNTING, **options)
        for row in range(LENGTH):
            asked(alone, request(row + 1.0, row, actor))
        rests = ended(together, actor), ended(alone, actor)
        jax.tree.map(np.testing.assert_array_equal, *rests)


def test_keys_are_those_of_each_actor_in_local_inference():
    where = place(max_batch=2)  # in which actor 2 has the slot of actor 0
    acting = functions(AGENT, CentralConfig(max_batch=2))[1]
    asked(where, request(0.0, actor=1))
    for unroll in range(2):
        for row in range(LENGTH):
            asked(where, request(0.0, row, 2, unroll))
        keys, _ = acting.plan(ROOT, local.count_of(unroll), np.int32(2))
        expected = [jax.random.uniform(key, (NUM_ENVS,)) for key in keys]
        drawn = ended(where, actor=2, unroll=unroll).extras["drawn"]
        np.testing.assert_array_equal(drawn, expected)


def test_each_row_tells_the_version_that_acted():
    where = place()
    for row, version in enumerate((7, 7, 9)):
        asked(where, request(1.0, row), version=version, params=float(version))
    rest = ended(where)
    assert rest.extras["version"].tolist() == [[7, 7], [7, 7], [9, 9]]
    assert rest.extras["version"].dtype == np.int32
    np.testing.assert_array_equal(rest.extras["params"], rest.extras["version"])
    # By who acted last, from the memory after the last row.
    assert np.all(rest.extras["completed"] == 9.0)
    assert np.all(rest.extras["after"] == 3.0) and np.all(rest.after == 3.0)


def test_an_unroll_has_the_memory_before_its_first_row():
    where = place()
    for unroll in range(2):
        for row in range(LENGTH):
            asked(where, request(1.0, row, unroll=unroll))
        rest = ended(where, unroll=unroll)
        assert np.all(rest.before == 3.0 * unroll)
        assert np.all(rest.after == 3.0 * unroll + 3.0)
    # Asked for twice, it is the same.
    assert np.all(ended(where, unroll=1).before == 3.0)
    with pytest.raises(ProtocolError, match="actor 0 ended"):
        ended(where, unroll=0)
    with pytest.raises(ProtocolError, match="nowhere"):
        ended(where, actor=1)


def test_two_actors_of_one_slot_are_not_answered_together():
    where = place(max_batch=2)
    with pytest.raises(ProtocolError, match="2 requests are for 1 slots"):
        asked(where, request(1.0), request(1.0, actor=2))
    assert asked(where, request(1.0), request(5.0, actor=1)) == [1.0, 5.0]
    assert asked(where, request(9.0, actor=2)) == [9.0]


def test_what_an_environment_writes_later_is_not_seen():
    """A device array may share the memory of what it was made from."""
    where, shown = place(max_batch=1), request(1.0)
    first = asked(where, shown)
    shown.step.obs[:] = 50.0
    assert first == [1.0]
    assert asked(where, request(0.0, row=1)) == [1.0]
