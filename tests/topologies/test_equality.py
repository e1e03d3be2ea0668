"""Every learner of the library on every topology that takes it: the same numbers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import CONTINUOUS, LEARNERS, distillation
from toy_workers import ADAPTS

from jaxrl_par.testing import check_equal, choices, equality, probes
from jaxrl_par.types import Agent, Info

ENV = probes.clock(2)
ALL = LEARNERS | CONTINUOUS

# XLA fuses what reads parameters out of a ring in another way.
ROUNDED = {("v-mpo", "delayed")}
# A batch of products, of the model's members, under a `vmap` over learners.
ROUNDED |= {("dyna", "gossip")}

QUICK = ("a2c, normalised",)


@pytest.mark.parametrize(
    "name",
    [x if x in QUICK else pytest.param(x, marks=pytest.mark.slow) for x in ALL],
)
def test_a_learner_computes_the_same_on_every_topology_that_takes_it(name):
    env = probes.continuous_action(2) if name in CONTINUOUS else ENV
    learner = ALL[name](env)
    taken = equality.taken_by(learner)
    assert {"compiled", "sharded", "threads"} <= set(taken)
    found = check_equal(learner, env)
    assert len(found) == len(taken) * (len(taken) - 1) // 2
    for pair, equality_class in found.items():
        rounds = any((name, topology) in ROUNDED for topology in pair)
        assert equality_class in (["bits", "rounding"] if rounds else ["bits"]), pair


@pytest.mark.slow
def test_topologies_that_need_halves_refuse_a_learner_without():
    taken = ("compiled", "sharded", "gossip", "gossip, own pace", "threads")
    taken = (*taken, "threads, central")
    assert equality.taken_by(distillation(ENV)) == taken
    normalised = LEARNERS["a2c, normalised"](ENV)
    assert "delayed" in equality.taken_by(normalised)
    assert "workers" not in equality.taken_by(normalised)
    with pytest.raises(ValueError, match="has no halves"):
        check_equal(distillation(ENV), ENV, ["compiled", "delayed"])


def test_a_topology_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="'thread'; did you mean 'threads'"):
        check_equal(LEARNERS["a2c, normalised"](ENV), ENV, ["thread"])


class Keyed(NamedTuple):
    params: jax.Array
    key: jax.Array


@pytest.mark.slow
def test_an_agent_may_keep_a_key():
    """From which an evolution strategy draws the noise of its members."""

    def act(params, carry, step, key):
        return jnp.zeros(step.first.shape, jnp.int32), carry, {}

    agent = Agent(
        init=lambda key, step: Keyed(jnp.float32(0), key),
        initial_carry=lambda num_envs: (),
        act=act,
        greedy=act,
        grad=lambda state, batch, key, axis: (jax.random.normal(state.key), Info({})),
        apply=lambda state, grads, metrics: state._replace(params=state.params + grads),
    )
    assert set(check_equal(agent, ENV).values()) == {"bits"}


@pytest.mark.slow
def test_a_coefficient_may_adapt_to_the_updates_metrics():
    """As that of a KL penalty does, in `apply`, wherever the update happens."""
    assert set(check_equal(ADAPTS, ENV).values()) == {"bits"}


def test_the_class_is_the_strongest_that_holds():
    x = [np.ones(1000, np.float32), np.arange(3)]
    # A single element near zero may differ by all of its size.
    x[0][0] = 1e-9
    near, far = [x[0].copy(), x[1]], [x[0] * np.float32(1.001), x[1]]
    near[0][0] = -1e-9
    classes = [equality.equality_of(x, other, 1e-5) for other in (x, near, far)]
    assert classes == ["bits", "rounding", "statistics"]


@pytest.mark.slow
@pytest.mark.parametrize("make", [choices.pairs, choices.parts])
def test_masks_and_parts_of_actions_are_the_same_on_every_topology(make):
    """They travel with the observations, through queues, threads and devices."""
    env = make(2)
    found = check_equal(LEARNERS["a2c, normalised"](env), env)
    assert set(found.values()) == {"bits"}, found
