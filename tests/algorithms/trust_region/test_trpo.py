"""TRPO against its equations: what a step is, what it is added to, and values."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from nearness import assert_near

from jaxrl_par import loops, random, rollout
from jaxrl_par.algorithms.trust_region import TRPOConfig, trpo
from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops import schedules
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.networks import NetworkConfig, actor_critic, policy_network
from jaxrl_par.testing import probes
from jaxrl_par.testing.checks import check_agent
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.delayed import delayed
from jaxrl_par.topologies.gossip import GossipConfig, gossip
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.topologies.workers import WorkersConfig, workers
from jaxrl_par.types import Trajectory

ENV = probes.counter(8)
SMALL = NetworkConfig(widths=(4,))


def agent(env=ENV, network=SMALL, optimizer=None, **settings):
    optimizer = optimizer or optax.adam(0.01)
    config = TRPOConfig(**{"value_steps": 3} | settings)
    actor = policy_network(*env.specs, network)
    return trpo(actor, actor_critic(*env.specs, network), optimizer, config)


def waved(x):
    return x + 0.3 * jnp.sin(jnp.arange(x.size)).reshape(x.shape)


@cache
def acted(optimizer=None, **settings):
    """(agent, state with a policy far from uniform, trajectory)"""
    made = agent(optimizer=optimizer, **settings)

    @jax.jit
    def start():
        streams = rollout.start(made, ENV, random.key(0))
        state = made.init(random.key(1), streams.step)
        state = state._replace(params=jax.tree.map(waved, state.params))
        given = (made, ENV, made.params(state), streams, random.key(2), 7)
        return state, rollout.unroll(*given)[1]

    return (made, *start())


def step_of(made, state, trajectory, axis=Axis()):
    batch = made.prepare(state, trajectory, axis)
    grads, info = made.grad(state, batch, random.key(0), axis)
    return batch, grads, info.metrics


@pytest.mark.slow
def test_a_step_is_that_of_explicit_matrices():
    """Scores of each action of each row by themselves, solved in float64."""
    made, state, trajectory = acted(step="natural", damping=0.05, cg_steps=40)
    batch, step, told = jax.jit(partial(step_of, made))(state, trajectory)
    flat, unravel = jax.flatten_util.ravel_pytree(state.params["actor"])
    actor = policy_network(*ENV.specs, SMALL)

    def log_probs(flat):
        (policy, _), _ = actor.unroll(unravel(flat), (), trajectory.rows)
        return policy.log_probs

    said, scores = (
        np.float64(x) for x in (log_probs(flat), jax.jacobian(log_probs)(flat))
    )
    keep = ~np.asarray(trajectory.rows.last)
    assert not keep.all()
    p, scores = np.exp(said[keep]), scores[keep]
    fisher = np.einsum("na,nai,naj->ij", p, scores, scores) / len(p)
    chosen = scores[np.arange(len(p)), np.asarray(trajectory.action)[keep]]
    advantages = np.float64(batch.extras["advantage"])[keep]
    assert advantages.mean() == pytest.approx(0, abs=1e-5)
    gradient = chosen.T @ advantages / len(p)
    damped = fisher + 0.05 * np.eye(len(fisher))
    x = np.linalg.solve(damped, gradient)
    right = np.sqrt(2 * 0.01 / (x @ damped @ x)) * x
    found, _ = jax.flatten_util.ravel_pytree(step)
    assert np.linalg.norm(found - right) < 1e-3 * np.linalg.norm(right)
    assert 0.004 < float(told["kl"]) < 0.012


@pytest.mark.slow
def test_a_step_that_was_not_accepted_leaves_all_bits():
    made, state, trajectory = acted(max_halvings=0, delta=0.3, damping=1e-3)
    _, grads, told = jax.jit(partial(step_of, made))(state, trajectory)
    assert float(told["no_step"]) == 1.0 and float(told["halvings"]) == 1.0
    after = made.apply(state, grads, told)
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


@pytest.mark.slow
def test_equal_advantages_move_nothing():
    """Their gradient is 0, and conjugate gradients divide by it."""
    made, state, trajectory = acted(gae_lambda=0.0, gamma=0.0)
    zero = jax.tree.map(jnp.zeros_like, state.params["critic"])
    state = state._replace(params=state.params | {"critic": zero})
    equal = trajectory._replace(reward=jnp.where(trajectory.rows.last, 0.0, 3.0))
    _, grads, told = jax.jit(partial(step_of, made))(state, equal)
    assert all(not np.any(x) for x in jax.tree.leaves(grads))
    assert float(told["no_step"]) == 1.0


@pytest.mark.slow
def test_the_kl_of_a_run_is_never_above_the_bound():
    """As metrics tell it, and from the policies before and after in float64."""
    made, state, _ = acted(delta=0.02, max_halvings=3)
    actor = policy_network(*ENV.specs, SMALL)
    streams, kls, refused = rollout.start(made, ENV, random.key(0)), [], 0

    @jax.jit
    def step(state, streams, key):
        given = made, ENV, made.params(state), streams, key, 16
        streams, trajectory, _ = rollout.unroll(*given)
        after, told = loops.learn(made, state, trajectory, key)
        said = [
            actor.unroll(x.params["actor"], (), trajectory.rows)[0][0].log_probs
            for x in (state, after)
        ]
        return after, streams, told, said, trajectory.rows.last

    for i in range(40):
        state, streams, told, said, last = step(state, streams, random.key(i))
        old, new = np.float64(said)
        rows = np.sum(np.exp(old) * (old - new), axis=-1)[~np.asarray(last)]
        kls.append(rows.mean())
        assert 0.0 <= float(told["kl"]) <= 0.02
        assert kls[-1] == pytest.approx(float(told["kl"]), rel=1e-2, abs=1e-6)
        assert bool(told["no_step"]) == np.array_equal(old, new)
        refused += float(told["halvings"])
    assert max(kls) > 0.01 and refused > 0


@pytest.mark.slow
def test_values_are_fitted_by_their_own_optimizer_from_the_estimate_before():
    """Three steps of gradient descent, against NumPy's sums over rows."""
    made, state, trajectory = acted(optax.sgd(0.1))
    _, _, told = step_of(made, state, trajectory)
    critic = actor_critic(*ENV.specs, SMALL)
    last, values = trajectory.rows.last, state.params["critic"]

    def said(params, steps):
        return critic.unroll(params, (), steps)[0][1]

    v, advantage = np.asarray(said(values, trajectory.steps)), np.zeros(8)
    targets = np.zeros((7, 8), np.float32)
    for t in reversed(range(7)):
        follows = 0.99 * np.asarray(trajectory.discount[t])
        error = np.asarray(trajectory.reward[t]) + follows * v[t + 1] - v[t]
        advantage = np.where(last[t], 0, error + follows * 0.97 * advantage)
        targets[t] = advantage + v[t]
    kept = np.asarray(~last)
    squares = 0.5 * np.square(targets - v[:-1])[kept]
    assert_near(told["value_loss"].total, squares.sum(), 1e-4)
    expected = values
    for _ in range(3):

        def loss(params):
            errors = targets - said(params, trajectory.rows)
            return jnp.sum(jnp.where(kept, 0.5 * errors**2, 0.0)) / kept.size

        slopes = jax.grad(loss)(expected)
        expected = jax.tree.map(lambda x, g: x - 0.1 * g, expected, slopes)
    after = made.observe(state, trajectory, Axis())
    assert_near(after.params["critic"], expected, 1e-4)
    jax.tree.map(
        np.testing.assert_array_equal, after.params["actor"], state.params["actor"]
    )
    assert float(after.values_skipped) == 0.0
    broken = trajectory._replace(reward=trajectory.reward.at[0].set(jnp.nan))
    after = made.observe(state, broken, Axis())
    assert float(after.values_skipped) == 3.0
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize("make", [probes.counter, probes.continuous_action])
def test_halves_make_the_step_of_the_whole(make, memory):
    env = make(8)
    network = NetworkConfig(widths=(4,), memory=memory, memory_width=4)
    check_agent(agent(env, network, damping=1.0, cg_steps=4), env, tolerance=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("make_env", [probes.clock, probes.continuous_action])
def test_probes_are_learned(make_env):
    env = make_env(16)
    learned = agent(env, optimizer=optax.adam(0.03), delta=0.05, value_steps=10)
    program = compiled(learned, env, 8)
    train = jax.jit(lambda key: scanned(program, 150)(program.init(key)))
    _, told = train(random.key(0))
    returns = told["episode_return"]
    last = slice(-20, None)
    reached = float(returns.total[last].sum() / returns.count[last].sum())
    assert reached > {"clock": 0.9, "continuous_action": -0.05}[env.name]
    assert np.all(told["kl"] <= 0.05)


JOINT = "a step that was searched from these: take compiled or threads"


@pytest.mark.parametrize(
    "placed",
    [
        lambda made: workers(made, ENV, 4, WorkersConfig(num_workers=2)),
        lambda made: gossip(made, ENV, 4, GossipConfig(2)),
        lambda made: delayed(made, ENV, 4, schedules.in_turn(2, 2, 1), num_workers=2),
    ],
)
def test_steps_for_parameters_that_others_may_have_moved_are_refused(placed):
    """Two workers that searched from the same parameters would make 0.010969 of a step
    whose KL is 0.002617."""
    with pytest.raises(RefusedError, match=JOINT) as refused:
        placed(agent())
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_late_step_is_rejected_and_counted():
    """Of two workers, who read at the same time, one was faster."""
    fresh = StalenessConfig("reject", max_staleness=0)
    late = schedules.in_turn(2, 6, 1)
    program = delayed(agent(), ENV, 8, late, num_workers=2, staleness=fresh)
    run = jax.jit(program.init)(random.key(0))
    step, rejected = jax.jit(program.step), []
    for _ in range(6):
        after, told = step(run)
        rejected.append(float(told["stale"]))
        actors = [x.learner.params["actor"] for x in (run, after)]
        same = [
            np.array_equal(*x) for x in zip(*map(jax.tree.leaves, actors), strict=True)
        ]
        assert all(same) == (told["stale"] or told["no_step"])
        run = after
    assert 0 < sum(rejected) < 6


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 2, 4, 8])
def test_devices_make_the_step_of_their_joint_batch(num_devices):
    """And no bit of it is changed by a mean over them."""
    made, state, trajectory = acted(delta=0.05)
    expected, told = jax.jit(partial(loops.learn, made))(
        state, trajectory, random.key(3)
    )

    def init(key):
        size = 8 // num_devices
        lanes = jax.lax.axis_index("data") * size + jnp.arange(size)
        return loops.Run(state, trajectory.lanes(lanes), key, jnp.zeros(()))

    def step(run):
        after, told = loops.learn(
            made, run.learner, run.local, run.key, axis=Axis("data")
        )
        return run._replace(learner=after), told

    program = sharded(loops.Program(init, step), data_mesh(num_devices))
    run, found = jax.jit(lambda key: program.step(program.init(key)))(random.key(3))
    moved = [
        jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), x.params, state.params)
        for x in (run.learner, expected)
    ]
    assert_near(*moved, bound=1e-3)  # digits are lost in the difference
    for name in ("kl", "gain", "halvings", "no_step", "grad_norm"):
        assert_near(found[name], told[name], 1e-3)
    for leaf in jax.tree.leaves(run.learner):
        first, *others = [np.asarray(x.data) for x in leaf.addressable_shards]
        assert all(np.array_equal(first, x) for x in others)


@pytest.mark.slow
def test_where_jax_sums_gradients_by_itself_the_step_is_the_same():
    """As in a user's own shard_map, whose default that is; and of 7 instances no bit
    differs from the others."""
    made, state, trajectory = acted(delta=0.05)
    update = partial(loops.learn, made)
    expected, _ = jax.jit(update)(state, trajectory, random.key(3))
    rows, lanes = P(None, "data"), P("data")
    specs = Trajectory(rows, rows, rows, rows, rows, lanes)  # pyright: ignore
    mapped = jax.shard_map(
        lambda trajectory: update(state, trajectory, random.key(3), axis=Axis("data")),
        mesh=data_mesh(2),
        in_specs=(specs,),
        out_specs=P(),
    )
    found, _ = jax.jit(mapped)(trajectory)
    assert_near(found.params, expected.params, 1e-4)
    seven = trajectory.lanes(jnp.arange(7)).along_lanes(
        lambda axis, x: jnp.stack(jnp.split(x, 7, axis))
    )
    joint = jax.vmap(
        lambda trajectory: step_of(made, state, trajectory, Axis("data"))[1],
        axis_name="data",
    )
    for leaf in jax.tree.leaves(jax.jit(joint)(seven)):
        assert np.any(leaf) and all(np.array_equal(leaf[0], x) for x in leaf)


def test_wrong_settings_are_told():
    with pytest.raises(RefusedError, match="value_steps must be at least 1, got 0"):
        agent(value_steps=0)
    with pytest.raises(RefusedError, match="delta must be above 0, got -1"):
        agent(delta=-1.0)
