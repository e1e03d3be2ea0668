"""Every learner of the library on every topology that takes it: the same numbers."""

import numpy as np
import optax
import pytest

from jaxrl_par import loops
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.distilled import distilled
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.algorithms.q_learning import QConfig, q_learning
from jaxrl_par.algorithms.reinforce import reinforce
from jaxrl_par.algorithms.vmpo import vmpo
from jaxrl_par.networks import NetworkConfig, actor_critic, q_network
from jaxrl_par.replay import uniform
from jaxrl_par.testing import check_equal, equality, probes

ENV = probes.clock(2)
SPECS = ENV.observation_spec, ENV.action_spec


def network(memory="none"):
    return actor_critic(
        *SPECS, NetworkConfig(widths=(4,), memory=memory, memory_width=4)
    )


def q_agent(method):
    config = QConfig(method=method, target_period=2)
    return q_learning(
        q_network(*SPECS, NetworkConfig(widths=(4,))), optax.adam(0.1), config
    )


def distillation():
    small, large = network(), network("lstm")
    return loops.distillation(
        distilled(small, optax.adam(0.1)),
        impala(large, optax.adam(0.1), ImpalaConfig(behaviour_cost=0.1)),
        loops.Teacher(large.initial_carry, large.unroll),
        loops.DistillationConfig(updates_per_step=2, batch_size=3, capacity=4),
    )


LEARNERS = {
    "a2c, normalised": lambda: normalize_observations(a2c(network(), optax.adam(0.1))),
    "impala, lstm": lambda: impala(network("lstm"), optax.adam(0.1)),
    "ppo": lambda: loops.epochs(ppo(network(), optax.adam(0.1)), 2, 2),
    "v-mpo": lambda: vmpo(network(), optax.adam(0.1)),
    "reinforce": lambda: reinforce(network(), optax.adam(0.1)),
    "n-step q-learning": lambda: q_agent("n_step"),
    "q-learning, replay": lambda: loops.replayed(
        q_agent("q"), uniform(4, 3, 2, constant_carry=True, min_size=3)
    ),
    "distillation": distillation,
}

# XLA fuses what reads parameters out of a ring in another way.
ROUNDED = {("v-mpo", "delayed")}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_computes_the_same_on_every_topology_that_takes_it(name):
    learner = LEARNERS[name]()
    taken = equality.taken_by(learner)
    assert {"compiled", "sharded", "threads"} <= set(taken)
    found = check_equal(learner, ENV)
    assert len(found) == len(taken) * (len(taken) - 1) // 2
    for pair, equality_class in found.items():
        rounds = any((name, topology) in ROUNDED for topology in pair)
        assert equality_class in (["bits", "rounding"] if rounds else ["bits"]), pair


def test_topologies_that_need_halves_refuse_a_learner_without():
    assert equality.taken_by(distillation()) == ("compiled", "sharded", "threads")
    normalised = LEARNERS["a2c, normalised"]()
    assert "delayed" in equality.taken_by(normalised)
    assert "workers" not in equality.taken_by(normalised)
    with pytest.raises(ValueError, match="has no halves"):
        check_equal(distillation(), ENV, ["compiled", "delayed"])


def test_the_class_is_the_strongest_that_holds():
    x = [np.ones(1000, np.float32), np.arange(3)]
    # A single element near zero may differ by all of its size.
    x[0][0] = 1e-9
    near, far = [x[0].copy(), x[1]], [x[0] * np.float32(1.001), x[1]]
    near[0][0] = -1e-9
    classes = [equality._equality(x, other, 1e-5) for other in (x, near, far)]
    assert classes == ["bits", "rounding", "statistics"]
