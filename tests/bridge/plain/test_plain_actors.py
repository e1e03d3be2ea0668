"""Actors without JAX do what actors by JAX do, up to rounding, and never import it."""

import pickle
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from jaxrl_par import random
from jaxrl_par.algorithms.dqn import dqn
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.axis import Axis
from jaxrl_par.bridge.actor_learner import asked
from jaxrl_par.bridge.actor_learner.config import ThreadsConfig
from jaxrl_par.bridge.actor_learner.system import ActorLearnerSystem
from jaxrl_par.bridge.plain import told
from jaxrl_par.bridge.supervision import Activity
from jaxrl_par.envs.host import Seeded, from_pure, make
from jaxrl_par.envs.host.seeded import seed_of
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import (
    NetworkConfig,
    TransformerConfig,
    actor_critic,
    q_network,
)
from jaxrl_par.testing import choices, probes
from jaxrl_par.topologies.fleet import fleet
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import repeat_recorded, threads
from jaxrl_par.training.checkpoints import state_hash
from jaxrl_par.types import Box, Discrete

KEY, LENGTH = random.key(7), 5
ENV = previous_action_and_reward(probes.counter(2))
NETWORKS = {
    "lstm": NetworkConfig(widths=(8,), memory="lstm", memory_width=4),
    "gru": NetworkConfig(widths=(8,), memory="gru", memory_width=4),
    "separate": NetworkConfig(widths=(8,), shared=False),
    "gtrxl": NetworkConfig(
        widths=(8,),
        memory="gtrxl",
        memory_width=4,
        transformer=TransformerConfig(2, 2, memory_length=3, mlp_width=8),
    ),
}
CHOICES = {
    "masked": lambda: choices.few_of_many(3, rooms=4),
    "combinations": lambda: choices.pairs(3),
    "parts": lambda: choices.parts(3),
}


def agent(env=ENV, network="lstm", **config):
    network = actor_critic(*env.specs, NETWORKS[network])
    return impala(network, optax.sgd(0.03), ImpalaConfig(**config))


def unrolled(act_with, learner, make_env, number=3):
    """The first unrolls of an actor, and the parameters with which it acted."""
    config = ThreadsConfig(num_actors=1, act_with=act_with)
    parts = asked.asked(learner, make_env, LENGTH, config, data_mesh(1), AXIS)
    system = ActorLearnerSystem(parts, KEY)
    actor = system.actor(0, activity=Activity("actor 0", 60.0))
    actor.start(system.env_key(0, 0))
    run = system.new_run([actor])
    params = system.actor_params(run.learner)
    found = [actor.unroll(params, 0) for _ in range(number)]
    actor.close()
    return found, params, system


AXIS = asked.Axis("data")


def assert_alike(ours, theirs):
    """Actions, observations and flags are the same, all else up to rounding."""
    for one, other in zip(ours, theirs, strict=True):
        a, b = one.trajectory, other.trajectory
        assert jax.tree.structure(a) == jax.tree.structure(b)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            assert x.dtype == y.dtype and x.shape == y.shape
            np.testing.assert_allclose(x, y, atol=2e-6)
        same = (jax.tree.leaves(x.action) for x in (a, b))
        for x, y in zip(*same, strict=True):
            if np.issubdtype(x.dtype, np.integer):
                np.testing.assert_array_equal(x, y)
        assert one.episodes == other.episodes and one.versions == other.versions


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("normalized", [False, True])
def test_unrolls_are_those_of_an_actor_by_jax(network, normalized):
    learner = agent(network=network, behaviour_cost=0.1)
    learner = normalize_observations(learner) if normalized else learner
    make_env = lambda key: from_pure(ENV, key)  # noqa: E731
    ours, *_ = unrolled("numpy", learner, make_env)
    theirs, *_ = unrolled("jax", learner, make_env)
    assert_alike(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["gaussian", "squashed"])
def test_actions_of_real_numbers_are_those_of_an_actor_by_jax(policy):
    pytest.importorskip("gymnasium")
    make_env = Seeded(lambda seed: make("Pendulum-v1", 2, seed))
    env = make_env(KEY)
    network = actor_critic(*env.specs, NetworkConfig(widths=(8,), policy=policy))
    learner = impala(network, optax.sgd(0.03))
    (ours, *_), (theirs, *_) = (
        unrolled(x, learner, make_env, number=1) for x in ("numpy", "jax")
    )
    a, b = ours[0].trajectory, theirs[0].trajectory
    np.testing.assert_allclose(a.action, b.action, atol=1e-4)
    np.testing.assert_allclose(a.extras["log_prob"], b.extras["log_prob"], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOICES)
def test_masks_and_parts_are_drawn_as_by_an_actor_by_jax(name):
    env = CHOICES[name]()
    learner = agent(env, "separate", behaviour_cost=0.1)
    make_env = lambda key: from_pure(env, key)  # noqa: E731
    ours, *_ = unrolled("numpy", learner, make_env)
    theirs, *_ = unrolled("jax", learner, make_env)
    assert_alike(ours, theirs)


CHILD = """
import pickle, sys
from jaxrl_par.bridge.supervision import Activity
from jaxrl_par.fleet.plain_roles import PlainActing
arguments, seed, arrays = pickle.load(sys.stdin.buffer)
from plain_simulators import watched
root, specs, form, length = arguments
role = PlainActing(root, watched, specs, form, length, True, 1)
actor = role.actor(0, activity=Activity("actor 0", 60.0))
actor.start(seed)
found = [actor.unroll(arrays, 0) for _ in range(3)]
assert not {"jax", "jaxlib", "flax"} & set(sys.modules)
sys.stdout.buffer.write(pickle.dumps(found))
"""


def test_a_process_acts_without_jax_as_one_with_it():
    """Bit for bit as NumPy does here, and up to rounding as JAX."""
    pytest.importorskip("gymnasium")
    import plain_simulators

    make_env = Seeded(plain_simulators.cartpole)
    env = make_env(KEY)
    learner = agent(env, "separate")
    here, arrays, system = unrolled("numpy", learner, make_env)
    assert_alike(here, unrolled("jax", learner, make_env)[0])
    policy = learner.acts_plainly
    given = told.words(system._root), env.specs, told.form(policy), LENGTH
    sent = pickle.dumps((given, seed_of(system.env_key(0, 0)), arrays))
    path = [*sys.path, plain_simulators.__file__.rpartition("/")[0]]
    child = subprocess.run(
        [sys.executable, "-c", CHILD], input=sent, capture_output=True, timeout=60,
        env={"PYTHONPATH": ":".join(path)}, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr.decode()
    there = [
        x._replace(trajectory=told.teller(learner)(x.trajectory))
        for x in pickle.loads(child.stdout)
    ]
    for x, y in zip(jax.tree.leaves(there), jax.tree.leaves(here), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_lockstep_ends_where_that_of_jax_ends():
    ends = []
    for act_with in ("jax", "numpy"):
        config = ThreadsConfig(2, "lockstep", 1, act_with=act_with)
        make_env = lambda key: from_pure(ENV, key)  # noqa: E731
        with threads(agent(), make_env, LENGTH, config, data_mesh(1)) as engine:
            run, _ = engine.advance(engine.init(KEY), 6)
        ends.append(jax.tree.leaves(run.learner))
    for x, y in zip(*ends, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4 * max(1.0, np.abs(x).max()))


@pytest.mark.slow
def test_a_run_goes_on_with_the_parameters_and_the_memory_that_were_saved():
    config = ThreadsConfig(2, "lockstep", 1, act_with="numpy")
    given = agent(), lambda key: from_pure(ENV, key), LENGTH, config, data_mesh(1)
    with threads(*given) as engine:
        half, _ = engine.advance(engine.init(KEY), 3)
        whole, _ = engine.advance(jax.tree.map(lambda x: x.copy(), half), 3)
    with threads(*given) as engine:
        engine.init(KEY)
        engine.resume(half)
        again, _ = engine.advance(half, 3)
    assert state_hash(whole) == state_hash(again)


@pytest.mark.slow
def test_a_recorded_free_run_is_repeated_bit_for_bit(tmp_path):
    config = ThreadsConfig(2, act_with="numpy", max_lag=1)
    given = agent(), lambda key: from_pure(ENV, key), LENGTH, config, data_mesh(1)
    with threads(*given) as engine:
        engine.record(tmp_path / "schedule.jsonl")
        first, _ = engine.advance(engine.init(KEY), 8)
    with repeat_recorded(*given, tmp_path / "schedule.jsonl") as engine:
        again, _ = engine.advance(engine.init(KEY), 8)
    assert state_hash(first._replace(local=())) == state_hash(again._replace(local=()))


def test_a_policy_that_numpy_does_not_know_is_refused():
    specs = Box((4,)), Discrete(3)
    known = told.problems(impala(actor_critic(*specs), optax.sgd(0.1)))
    assert known == []
    others = [
        impala(actor_critic(*specs, NetworkConfig(**options)), optax.sgd(1))
        for options in (
            {"compute_dtype": "bfloat16"},
            {"memory": "lstm", "shared": False},
        )
    ]
    others += [
        dqn(q_network(*specs), optax.sgd(0.1)),
        # One that acts otherwise than its network.
        impala(actor_critic(*specs), optax.sgd(1))._replace(act=lambda *_: None),
    ]
    for other in others:
        (found,) = told.problems(other)
        assert "for this learner it must be jax" in found
    many = impala(actor_critic(Box((4,)), Discrete(33)), optax.sgd(0.1))
    assert told.problems(many) == [
        "act_with: numpy draws from up to 32 actions, so it must be jax, got 33 actions"
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"inference": "central"}, "inference must be local with act_with = numpy"),
        ({"actor_device": "learner"}, "actor_device must be cpu with act_with = numpy"),
    ],
)
def test_what_does_not_go_together_is_said(options, said):
    config = ThreadsConfig(**{"act_with": "numpy"} | options)
    assert said in "; ".join(config.problems())


SEEDED = Seeded(lambda seed: make("CartPole-v1", 2, seed))
DENSE, PICTURES = Box((4,)), Box((8, 8, 1))


@pytest.mark.parametrize(
    ("make_env", "obs", "options", "found"),
    [
        (SEEDED, DENSE, {}, "numpy"),
        (SEEDED, DENSE, {"schedule": "lockstep", "quorum": 1}, "numpy"),
        # Lockstep has the bits of other topologies, which act by JAX.
        (SEEDED, DENSE, {"schedule": "lockstep"}, "jax"),
        (SEEDED, DENSE, {"inference": "central"}, "jax"),
        (SEEDED, DENSE, {"actor_device": "learner"}, "jax"),
        (SEEDED, PICTURES, {}, "jax"),
        (lambda key: from_pure(ENV, key), DENSE, {}, "jax"),
        (SEEDED, DENSE, {"act_with": "jax"}, "jax"),
        (SEEDED, DENSE, {"schedule": "lockstep", "act_with": "numpy"}, "numpy"),
    ],
)
def test_auto_acts_by_numpy_where_no_bits_are_promised(make_env, obs, options, found):
    """And by the same where the record of a fleet is repeated in one thread."""
    learner = impala(actor_critic(obs, Discrete(2)), optax.sgd(0.1))
    config = ThreadsConfig(**options)
    given = make_env, 5, config, data_mesh(1), Axis("data")
    parts = asked.asked(learner, *given)
    assert parts.config.act_with == found


def test_auto_acts_by_jax_what_numpy_does_not_know():
    learner = dqn(q_network(DENSE, Discrete(2)), optax.sgd(0.1))
    given = SEEDED, 5, ThreadsConfig(), data_mesh(1), Axis("data")
    assert asked.asked(learner, *given).config.act_with == "jax"


def test_keys_that_numpy_cannot_draw_from_are_refused():
    with pytest.raises(RefusedError, match="it must be jax with keys of rbg"):
        told.words(jax.random.key(0, impl="rbg"))


def test_a_fleet_without_jax_needs_what_makes_simulators_from_a_seed():
    pytest.importorskip("ray")
    config = ThreadsConfig(act_with="numpy")
    given = agent(), lambda key: from_pure(ENV, key), LENGTH, config, data_mesh(1)
    with pytest.raises(RefusedError, match=r"make_env must be an envs\.host\.Seeded"):
        fleet(*given)
