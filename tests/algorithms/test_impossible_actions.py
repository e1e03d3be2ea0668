"""Networks that mask with -inf, as games need: every algorithm learns with them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import loops, random
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.distilled import distilled
from jaxrl_par.algorithms.dqn import DQNConfig, dqn
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.algorithms.q_learning import QConfig, q_learning
from jaxrl_par.algorithms.reinforce import reinforce
from jaxrl_par.algorithms.trust_region import trpo
from jaxrl_par.algorithms.vmpo import vmpo
from jaxrl_par.networks import NetworkConfig, actor_critic, q_network
from jaxrl_par.replay import Windows, uniform
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled, scanned

ENV = probes.counter(4)
SMALL = NetworkConfig(widths=(4,))
SGD = optax.sgd(0.01)


def possible(steps):
    """Action 1 in every second step only; none where the episode ended."""
    second = steps.obs[..., 0].astype(jnp.int32) % 2 == 1
    mask = jnp.stack([jnp.ones_like(second), second], axis=-1)
    return mask & ~steps.last[..., None]


def masked(network):
    """What a network of logits, or of values of actions, gives where it is possible."""

    def hidden(outputs, steps):
        if isinstance(outputs, tuple):
            policy, values = outputs
            return policy._replace(logits=hidden(policy.logits, steps)), values
        mask = possible(steps)
        mask = mask.reshape(*mask.shape, *[1] * (outputs.ndim - mask.ndim))
        return jnp.where(mask, outputs, -jnp.inf)

    def of(function):
        def call(params, carry, steps):
            outputs, carry = function(params, carry, steps)
            return hidden(outputs, steps), carry

        return call

    return network._replace(apply=of(network.apply), unroll=of(network.unroll))


ACTOR = masked(actor_critic(*ENV.specs, SMALL))
VALUES = masked(q_network(*ENV.specs, SMALL))


def q_agent(method, exploration="epsilon_greedy"):
    config = QConfig(method, exploration=exploration, epsilon_finals=(0.5,) * 3)
    return q_learning(VALUES, SGD, config)


def replayed_dqn(**given):
    config = DQNConfig(epsilon_final=0.5, n_step=2, target_period=2, **given)
    atoms = None if config.values == "expected" else config.num_atoms
    network = masked(q_network(*ENV.specs, SMALL, num_atoms=atoms))
    windows = Windows(1, lookahead=1, constant_carry=True)
    return loops.replayed(dqn(network, SGD, config), uniform(8, 8, windows))


LEARNERS = {
    "trpo": lambda: trpo(ACTOR, ACTOR, SGD),
    "v-mpo": lambda: vmpo(ACTOR, SGD),
    "a2c": lambda: a2c(ACTOR, SGD),
    "ppo": lambda: loops.epochs(ppo(ACTOR, SGD), 2, 2),
    "impala": lambda: impala(ACTOR, SGD, ImpalaConfig(behaviour_cost=0.1)),
    "impala, epsilon": lambda: impala(ACTOR, SGD, ImpalaConfig(correction="epsilon")),
    "reinforce": lambda: reinforce(ACTOR, SGD),
    "q": lambda: q_agent("q"),
    "sarsa, boltzmann": lambda: q_agent("sarsa", "boltzmann"),
    "n-step q": lambda: q_agent("n_step"),
    "dqn": replayed_dqn,
    "c51": lambda: replayed_dqn(values="categorical", num_atoms=5),
    "quantiles": lambda: replayed_dqn(values="quantile", num_atoms=5, rescale=1e-3),
    "distillation": lambda: loops.distillation(
        distilled(ACTOR, SGD),
        impala(ACTOR, SGD),
        loops.Teacher(ACTOR.initial_carry, ACTOR.unroll),
        loops.DistillationConfig(updates_per_step=1, batch_size=2, capacity=4),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_no_update_is_skipped_where_actions_are_impossible(make):
    program = compiled(make(), ENV, 8)
    train = jax.jit(lambda key: scanned(program, 4)(program.init(key)))
    run, metrics = train(random.key(0))
    assert int(run.progress.skipped) == 0
    for x in jax.tree.leaves((run.learner, metrics)):
        if jnp.issubdtype(x.dtype, jnp.floating):
            assert np.all(np.isfinite(x))
