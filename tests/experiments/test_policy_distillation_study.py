"""What students keep, and how sure it is; greedy play with some chance in it."""

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import envs, random

pytestmark = pytest.mark.slow

PATH = Path(__file__).parents[2] / "experiments" / "policy_distillation_study.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("policy_distillation_study", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def case(games, mean, error, **given):
    told = {mode: mean for mode in ("sampled", "greedy")}
    errors = {mode: error for mode in told}
    kept = {
        "returns": dict.fromkeys(games, told),
        "errors": dict.fromkeys(games, errors),
    }
    return {"games": list(games), "method": "kl", "seed": 0} | kept | given


def test_shares_are_ratios_of_means_with_their_standard_errors(study):
    games = ("a", "b")
    teachers = {
        "a": case(["a"], 10.0, 0.5, parameters=400),
        "b": case(["b"], 40.0, 0.0, parameters=800),
    }
    row = study.kept(case(games, 20.0, 1.0, parameters=100), teachers)
    assert row["share_of_parameters"] == 0.25
    np.testing.assert_allclose(row["sampled"], [2.0, 0.5])
    np.testing.assert_allclose(row["sampled_mean"], 1.0)
    # Of x / y: |x / y| sqrt((dx / x)^2 + (dy / y)^2).
    first = 2.0 * np.sqrt((1.0 / 20.0) ** 2 + (0.5 / 10.0) ** 2)
    np.testing.assert_allclose(row["sampled_errors"], [first, 1.0 / 40.0])


class Greedy(NamedTuple):
    """An agent, as far as it is asked."""

    greedy: Any


def test_one_greedy_action_in_twenty_is_drawn_of_all(study):
    number = 20_000
    env = envs.make("CartPole-v1", number)
    _, step = env.reset(random.key(0))
    agent = Greedy(lambda params, carry, step, key: (params, carry, {}))
    act = jax.jit(study.mostly_greedy(agent, env.specs))
    action, carry, _ = act(jnp.ones(number, jnp.int32), (), step, random.key(1))
    assert carry == ()
    # Half of those that are drawn are the greedy one, 1, of two.
    share = float(np.mean(np.asarray(action) == 0))
    assert abs(share - study.EPSILON / 2) < 5 * np.sqrt(0.025 * 0.975 / number)
