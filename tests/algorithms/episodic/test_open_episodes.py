"""What is kept of episodes until they end, against sums over whole episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.algorithms.episodic import episodes

NUM_LANES, LENGTH, LONGEST, GAMMA = 3, 4, 9, 0.9
push = jax.jit(episodes.pushed, static_argnums=2)
take = jax.jit(episodes.due, static_argnums=1)


def stream(rng, num_rows, longest=LONGEST):
    """(reward, last) [num_rows, B] of episodes of random lengths, rows that are `last`
    included; and the return of each row, not a number where its episode is open."""
    reward = rng.normal(size=(num_rows, NUM_LANES)).astype(np.float32)
    last = np.zeros((num_rows, NUM_LANES), bool)
    returns = np.full((num_rows, NUM_LANES), np.nan)
    for lane in range(NUM_LANES):
        begin = 0
        while True:
            end = begin + rng.integers(1, longest + 1)
            if end >= num_rows:
                break
            last[end, lane], reward[end, lane] = True, 0.0
            for row in range(begin, end):
                factors = GAMMA ** np.arange(end - row)
                returns[row, lane] = np.sum(factors * reward[row:end, lane])
            begin = end + 1
    return reward, last, returns


def written(reward, last, length):
    """What is written: for every row of the stream its return, in batches."""
    kept = episodes.start(NUM_LANES, length, 1)
    batches = []
    for begin in range(0, len(reward), LENGTH):
        rows = slice(begin, begin + LENGTH)
        number = np.arange(len(reward))[rows, None] * NUM_LANES + np.arange(NUM_LANES)
        key = jnp.float32(number)[..., None]
        given = map(jnp.asarray, (number % 2, reward[rows], last[rows]))
        kept = push(kept, episodes.Rows(key, *given), GAMMA)
        entries, kept = take(kept, 2 * LENGTH)
        batches.append(jax.tree.map(lambda x: np.asarray(x), entries))
    return batches, kept


def test_every_row_is_written_once_with_its_return():
    reward, last, returns = stream(np.random.default_rng(0), 400)
    batches, kept = written(reward, last, episodes.ring_length(LONGEST, LENGTH))
    seen = np.full(returns.shape, np.nan)
    for entries in batches:
        number = entries.key[entries.there, 0].astype(int)
        assert np.all(entries.action[entries.there] == number % 2)
        row, lane = np.divmod(number, NUM_LANES)
        assert np.all(np.isnan(seen[row, lane]))
        seen[row, lane] = entries.value[entries.there]
        # Lanes first, and the oldest rows of a lane first.
        assert np.all(np.diff(lane * 1_000 + row) > 0)
    # The newest may wait still.
    done = ~np.isnan(returns) & (np.arange(400) < 400 - 2 * LONGEST)[:, None]
    assert not np.isnan(seen[done]).any()
    there = ~np.isnan(seen)
    np.testing.assert_allclose(seen[there], returns[there], rtol=0, atol=1e-5)
    assert not np.any(kept.lost)


def test_an_episode_is_written_with_the_unroll_that_ends_it():
    reward, last = np.ones((LENGTH, NUM_LANES), np.float32), np.zeros((LENGTH, 3), bool)
    reward[2, 0], last[2, 0] = 0.0, True
    (entries,), kept = written(reward, last, episodes.ring_length(LONGEST, LENGTH))
    np.testing.assert_allclose(entries.value[entries.there], [1.9, 1.0], rtol=1e-6)
    assert kept.open.tolist() == [1, 4, 4] and not np.any(kept.waiting)


@pytest.mark.parametrize("length", [LENGTH, 2 * LENGTH])
def test_rows_that_a_ring_cannot_hold_are_counted(length):
    """An episode of 20 steps: only its last rows are known when it ends."""
    reward, last = np.ones((24, NUM_LANES), np.float32), np.zeros((24, NUM_LANES), bool)
    reward[20], last[20] = 0.0, True
    batches, kept = written(reward, last, length)
    number = np.sum([x.there for x in batches], axis=0).sum()
    # Three rows follow the end, and one is `last`.
    assert number == (length - 4) * NUM_LANES
    assert kept.lost.tolist() == [24 - length] * NUM_LANES
    values = np.concatenate([x.value[x.there] for x in batches])
    expected = [np.sum(GAMMA ** np.arange(20 - row)) for row in range(24 - length, 20)]
    np.testing.assert_allclose(values, expected * NUM_LANES, rtol=1e-5)
