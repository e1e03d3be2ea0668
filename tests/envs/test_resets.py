"""Where episodes begin: how starts are distributed, and who shares one."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from walks import followed, walk

from jaxrl_par import envs, rollout
from jaxrl_par.axis import Axis
from jaxrl_par.envs import Resets, from_raw, host
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops import learner_of
from jaxrl_par.testing import check_environment
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.training.evaluation import evaluate
from jaxrl_par.types import Agent, Info

KINDS = {
    "fresh": Resets(),
    "pooled": Resets("pooled", per_step=2, pool_size=16),
    "pooled_for_ever": Resets("pooled", per_step=0, pool_size=16),
    "optimistic": Resets("optimistic", per_step=4),
}


def begun(env, num_episodes, key=0):
    """Starts [T, B] where all environments end in every other row, and the states."""
    actions = np.ones((2 * num_episodes, env.num_envs), np.int32)
    steps, states, *_ = followed(env, actions, key)
    assert steps.last[1::2].all() and steps.first[2::2].all()
    states = jax.tree.map(lambda x: x[1::2], states.inner)
    return np.asarray(steps.obs[2::2, :, 1]), states


def chi_square(counts, expected):
    return float(np.sum((counts - expected) ** 2 / expected))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_keeps_the_contract(kind):
    check_environment(from_raw(walk(limit=3), 4, "walk", KINDS[kind]), 24)
    also = replace(KINDS[kind], stagger=3)
    check_environment(from_raw(walk(limit=3), 4, "walk", also), 24)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fresh", "pooled", "optimistic"])
def test_starts_are_as_likely_as_resets_make_them(kind):
    env = from_raw(walk(num_starts=8), 64, "walk", KINDS[kind])
    starts, _ = begun(env, 400)
    # Starts are shared: what is independent is the number of resets that were computed.
    resets = KINDS[kind]
    number = 400 * (64 if kind == "fresh" else resets.per_step)
    counts = np.bincount(starts.astype(int).ravel(), minlength=8)
    # The 0.9999 quantile of 7 degrees of freedom.
    assert chi_square(counts / counts.sum() * number, number / 8) < 29.9


def test_starts_of_a_pool_are_equally_likely_and_drawn_apart():
    size, num_rows = 16, 800
    env = from_raw(walk(), 8, "walk", KINDS["pooled_for_ever"])
    starts, states = begun(env, num_rows)
    pool = np.asarray(states.kept.starts[0].start[0])[:size]
    assert len({*pool.tolist()}) == size
    slots = np.searchsorted(np.sort(pool), starts)
    np.testing.assert_array_equal(np.sort(pool)[slots], starts)
    # The 0.9999 quantile of 15 degrees of freedom.
    for of_one in slots.T:
        assert chi_square(np.bincount(of_one, minlength=size), num_rows / size) < 44.3
    # From row to row, an environment has the same start as often as chance has it.
    deviation = (slots[1:, 0] == slots[:-1, 0]).mean() - 1 / size
    assert abs(deviation) < 4 * np.sqrt(1 / size / num_rows)
    # In a row nobody shares one.
    assert all(len({*row.tolist()}) == 8 for row in slots)


def test_a_pool_is_made_anew_when_it_is_old():
    env = from_raw(walk(), 8, "walk", KINDS["pooled"])
    _, states = begun(env, 12)
    pools = np.asarray(states.kept.starts[0].start)
    # Two resets a step, and so sixteen in eight steps, which are four rows.
    for t in range(11):
        same = pools[t] == pools[t + 1]
        assert same.all() if t % 4 != 2 else not same.any()
    assert len({*pools.ravel().tolist()}) == 4 * 16


@pytest.mark.slow
def test_members_of_a_population_renew_pools_of_their_own():
    env = from_raw(walk(), 8, "walk", KINDS["pooled"])
    keys = jax.random.split(jax.random.key(0), 3)
    actions = jnp.ones(8, jnp.int32)

    def play(key):
        reset_key, step_key = jax.random.split(key)

        def turn(now, key):
            state, step, *_ = env.step(now, actions, key)
            return state, (step, state.inner.kept.starts[0].start)

        steps = jax.random.split(step_key, 40)
        return jax.lax.scan(turn, env.reset(reset_key)[0], steps)[1]

    together = jax.jit(jax.vmap(play))(keys)
    for i, key in enumerate(keys):
        alone = jax.jit(play)(key)
        jax.tree.map(
            lambda x, y, i=i: np.testing.assert_array_equal(x[i], y), together, alone
        )


@pytest.mark.slow
def test_starts_of_a_pool_that_is_too_small_are_shared_equally():
    env = from_raw(walk(), 8, "walk", Resets("pooled", per_step=0, pool_size=4))
    starts, _ = begun(env, 20)
    for row in starts:
        _, counts = np.unique(row, return_counts=True)
        assert counts.tolist() == [2] * 4
    # The first of them has each start in some row.
    assert len({*starts[:, 0].tolist()}) == 4
    # Two that end alone share none, wherever they lie.
    actions = np.zeros((2, 8), np.int32)
    actions[0, [0, 4]] = 1
    steps, *_ = followed(env, actions)
    assert steps.obs[2, 0, 1] != steps.obs[2, 4, 1]


@pytest.mark.sample(1)
@pytest.mark.parametrize("number", [7, 1, 3, 4, 32])
def test_optimistic_starts_are_shared_as_little_as_can_be(number):
    env = from_raw(walk(), 32, "walk", KINDS["optimistic"])
    # Apart by a multiple of the resets, as places alone would give them one start.
    ends = np.arange(32)[:: 32 // number][:number]
    actions = np.zeros((6, 32), np.int32)
    actions[::2, ends] = 1
    steps, *_ = followed(env, actions)
    assert (steps.last[1].sum(), steps.first[2].sum()) == (number, number)
    found = []
    for t in (2, 4, 6):
        starts = np.asarray(steps.obs[t, ends, 1])
        _, counts = np.unique(starts, return_counts=True)
        assert len(counts) == min(number, 4)
        assert counts.max() - counts.min() <= 1
        found += starts.tolist()
    # None comes again later.
    assert len({*found}) == 3 * min(number, 4)
    others = np.setdiff1d(np.arange(32), ends)
    assert (np.diff(np.asarray(steps.obs[:, others, 1]), axis=0) == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_keys_decide_alone_where_episodes_begin(kind):
    env = from_raw(walk(), 8, "walk", KINDS[kind])
    (first, _), (again, _), (other, _) = (begun(env, 6, key) for key in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.isin(other, first).any()


def idle(num_envs):
    """Does nothing, learns nothing."""
    zeros = jnp.zeros((), jnp.float32)

    def act(params, carry, step, key):
        return jnp.zeros(step.first.shape[0], jnp.int32), carry, {}

    return Agent(
        init=lambda key, step: zeros,
        initial_carry=lambda num_envs: (),
        act=act,
        greedy=act,
        grad=lambda state, *args: (state, Info({})),
        apply=lambda state, *args: state,
        params=lambda state: state,
    )


def staggered():
    """Trap S15."""
    return from_raw(walk(limit=10), 10, "walk", Resets(stagger=10))


def test_first_episodes_that_are_staggered_end_one_by_one():
    env = staggered()
    steps, _, rewards, discounts = followed(env, np.zeros((24, 10), np.int32))
    first_ends = np.asarray(steps.last).argmax(0)
    np.testing.assert_array_equal(first_ends, np.arange(10, 0, -1))
    for b, end in enumerate(first_ends):
        assert discounts[end - 1, b] == 1 and rewards[end - 1, b] == 1
        # The episode after it is whole.
        assert steps.first[end + 1, b] and steps.last[end + 11, b]
        assert not steps.last[end + 1 : end + 11, b].any()


def test_first_episodes_that_are_staggered_count_nowhere():
    env, agent, key = staggered(), idle(10), jax.random.key(0)
    streams = rollout.start(agent, env, key)
    _, _, episodes = rollout.unroll(agent, env, (), streams, key, 10)
    assert episodes.return_.count == 0 and episodes.return_.total == 0
    _, _, episodes = rollout.unroll(agent, env, (), streams, key, 21)
    assert episodes.return_.count == 10 and episodes.length.count == 10
    assert episodes.return_.total / episodes.return_.count == 10
    played = evaluate(agent, env, (), key, 2)
    np.testing.assert_array_equal(played.returns, np.full((2, 10), 10.0))
    np.testing.assert_array_equal(played.lengths, np.full((2, 10), 10))


@pytest.mark.slow
def test_a_first_episode_that_ends_early_does_not_count_either():
    env = from_raw(walk(end=4, limit=10), 5, "walk", Resets(stagger=10))
    steps, _, _, discounts = followed(env, np.zeros((6, 5), np.int32))
    # Cut after 10, 8, 6, 4 and 2 steps at the latest.
    ends = np.asarray(steps.last).argmax(0)
    np.testing.assert_array_equal(ends, [4, 4, 4, 4, 2])
    np.testing.assert_array_equal(discounts[ends - 1, np.arange(5)], [0, 0, 0, 0, 1])
    streams = rollout.start(idle(5), env, jax.random.key(0))
    given = idle(5), env, (), streams, jax.random.key(0)
    assert rollout.unroll(*given, 4)[2].return_.count == 0


def test_whole_first_episodes_are_not_played_where_they_are_cut():
    env, key = staggered(), jax.random.key(0)
    with pytest.raises(RefusedError, match="make it with stagger = 0, got 10"):
        rollout.whole_episodes(idle(10), env, (), key, 5)
    with pytest.raises(RefusedError, match="make it with stagger = 0, got 10"):
        host.from_pure(env, key)


@pytest.mark.slow
def test_environments_without_a_limit_can_be_staggered():
    env = from_raw(walk(), 4, "walk", Resets(stagger=4))
    steps, *_ = followed(env, np.zeros((40, 4), np.int32))
    assert env.max_episode_steps is None
    np.testing.assert_array_equal(np.asarray(steps.last).argmax(0), [4, 3, 2, 1])
    assert steps.last.sum() == 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_names_take_resets(kind):
    env = envs.make("Catch-bsuite", 8, resets=KINDS[kind])
    steps, *_ = followed(env, np.zeros((30, 8), np.int32))
    columns = np.asarray(steps.obs[10, :, 0]).argmax(-1)
    assert steps.first[10].all() and len({*columns.tolist()}) > 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_one_device_of_a_mesh_gives_the_bits_of_a_program(kind):
    agent = idle(8)
    env = from_raw(walk(limit=3), 8, "walk", KINDS[kind])

    def trained(axis, place):
        program = place(compiled(learner_of(agent), env, 5, axis))
        return jax.jit(scanned(program, 4))(program.init(jax.random.key(0)))[0]

    alone = trained(Axis(), lambda program: program).local
    mesh = data_mesh(1)
    on_mesh = trained(Axis("data"), lambda program: sharded(program, mesh)).local
    for x, y in zip(jax.tree.leaves(alone), jax.tree.leaves(on_mesh), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y[0])


@pytest.mark.parametrize(
    ("resets", "wrong"),
    [
        (Resets("pooled", per_step=3), "pool_size must be a multiple of per_step = 3"),
        (Resets("optimistic", per_step=0), "per_step must be at least 1 for kind"),
        (Resets("optimistic", per_step=9), "at most the 8 environments that share"),
        (Resets("pooled", pool_size=0), "pool_size must be at least 1, got 0"),
        (Resets(stagger=-1), "stagger must be at least 0, got -1"),
        (Resets(stagger=501), "stagger must be at most max_episode_steps = 500"),
    ],
)
def test_what_cannot_be_is_refused(resets, wrong):
    with pytest.raises(RefusedError, match=wrong):
        envs.make("CartPole-v1", 8, resets=resets)


def test_trials_have_fresh_resets():
    with pytest.raises(RefusedError, match="have fresh resets alone"):
        envs.make("Bandits-5x10", 8, resets=KINDS["pooled"])
