"""Rows that no unroll is made of are checked as well."""

import numpy as np
import pytest
from jax.random import split

from jaxrl_par.envs import make
from jaxrl_par.envs.host import from_pure
from jaxrl_par.envs.host.admission import BadRowError
from jaxrl_par.envs.host.checked import checked
from jaxrl_par.envs.host.failures import SimulatorError
from jaxrl_par.random import key
from jaxrl_par.testing import probes


def steps(env, change=lambda *row: row, count=6):
    """Rows of an environment, of which the fourth is changed."""
    step = env.step
    numbers = iter(range(count))

    def stepped(action):
        return (change if next(numbers) == 3 else lambda *row: row)(*step(action))

    env.step, rows = stepped, []
    seen = checked(env)
    seen.reset()
    seen.plan(split(key(1), count))
    for _ in range(count):
        row = seen.step(np.ones(2, np.int32))
        rows.append([np.copy(x) for x in (row[0].obs, *row[1:])])
    return rows


def counter():
    return from_pure(probes.counter(2), key(0))


def test_right_rows_come_through():
    env = counter()
    known = [env.reset()]
    env.plan(split(key(1), 6))
    for (obs, reward, discount), _ in zip(steps(counter()), range(6), strict=True):
        known = env.step(np.ones(2, np.int32))
        np.testing.assert_array_equal(obs, known[0].obs)
        np.testing.assert_array_equal(reward, known[1])
        np.testing.assert_array_equal(discount, known[2])


@pytest.mark.parametrize(
    "change",
    [
        lambda step, r, d: (step._replace(obs=step.obs * np.nan), r, d),
        lambda step, r, d: (step, r * np.inf, d),
        lambda step, r, d: (step, r.astype(float), d),
        lambda step, r, d: (step._replace(first=~step.first), r, d),
    ],
)
def test_a_bad_row_is_refused_with_its_step(change):
    with pytest.raises(BadRowError) as error:
        steps(counter(), change)
    assert "in step 4, whose results are row 1 of counter" in error.value.__notes__


def test_it_cannot_end_the_process():
    def exits(*row):
        raise SystemExit

    with pytest.raises(SimulatorError) as error:
        steps(counter(), exits)
    assert "in step 4" in error.value.__notes__[0]


def test_specs_and_name_stay():
    env = from_pure(make("CartPole-v1", 2), key(0))
    seen = checked(env)
    assert (seen.specs, seen.name, seen.num_envs) == (env.specs, env.name, 2)
