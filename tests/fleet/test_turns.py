"""Turns of learners at their own pace: who has one, and who waits, without Ray."""

import asyncio

import numpy as np
import pytest

from jaxrl_par.fleet import turns as module
from jaxrl_par.fleet.turns import Asked, Turns


@pytest.fixture(autouse=True)
def _no_watch(monkeypatch):
    """This process does not end with its parent."""
    monkeypatch.setattr(module, "end_with_parent", lambda: None)


def made(size):
    return Turns([f"name {i}" for i in range(size)], [0] * size)


def around(size, number):
    """Each meets the next one of a ring, in every turn."""
    return [[(i + 1) % size for i in range(size)] for _ in range(number)]


async def begun(awaitable):
    """A task, which has done what it can do at once."""
    task = asyncio.ensure_future(awaitable)
    for _ in range(20):
        await asyncio.sleep(0)
    return task


async def soon(awaitable):
    """What is there at once."""
    task = await begun(awaitable)
    assert task.done()
    return task.result()


def asked(unroll=0, env_steps=10, meets=True):
    return Asked(unroll, env_steps, meets)


def test_no_ring_of_learners_waits_for_itself_and_meetings_have_both():
    """All ask at once for the next one of the ring; all turns are given, and at no time
    is a learner in two of them."""
    size, number = 5, 200
    turns, busy, order = made(size), [], []

    async def live(place, rng):
        for unroll in range(10**6):
            grant = await turns.take(place, 0, asked(unroll))
            assert grant is not None
            pair = {place, grant.partner}
            assert not any(pair & other for other in busy)
            busy.append(pair)
            order.append(grant.number)
            for _ in range(rng.integers(4)):
                await asyncio.sleep(0)
            busy.remove(pair)
            await turns.done(place, 0, missed=False)

    async def run():
        await turns.open(0, around(size, number))
        lives = [
            asyncio.ensure_future(live(i, np.random.default_rng(i)))
            for i in range(size)
        ]
        settled = await asyncio.wait_for(turns.settled(), 30)
        for task in lives:
            task.cancel()
        return settled

    settled = asyncio.run(run())
    assert order == list(range(number)) and settled.number == number
    assert settled.env_steps == 10 * number
    given = [x.learner for x in settled.taken]
    assert min(np.bincount(given, minlength=size)) > number // (2 * size)
    # Each began its unroll right after its own turn before.
    for place in range(size):
        mine = [i for i, x in enumerate(settled.taken) if x.learner == place]
        reads = [settled.taken[i].read for i in mine]
        assert reads == [0, *(i + 1 for i in mine[:-1])]


def test_one_that_computes_holds_up_nobody():
    """Learner 2 never asks: the others have all turns, and meet it."""
    turns = made(3)

    async def run():
        await turns.open(0, [[2, 2, 0]] * 6)
        for n in range(6):
            grant = await soon(turns.take(n % 2, 0, asked(n // 2)))
            assert (grant.number, grant.partner, grant.name) == (n, 2, "name 2")
            await turns.done(n % 2, 0, missed=False)
        return await soon(turns.settled())

    settled = asyncio.run(run())
    assert [x.learner for x in settled.taken] == [0, 1, 0, 1, 0, 1]


def test_no_turn_is_given_beyond_those_let_in_and_all_are_waited_for():
    turns = made(3)

    async def run():
        early = await begun(turns.take(0, 0, asked()))
        assert not early.done()
        await turns.open(7, [[1, 0, 0]])
        assert (await early).number == 7
        late = await begun(turns.take(2, 0, asked(meets=False)))
        settled = await begun(turns.settled())
        assert not late.done() and not settled.done()
        await turns.done(0, 0, missed=False)
        assert not late.done()
        assert (await settled).number == 8
        await turns.open(8, [[1, 0, 0]])
        assert (await late).number == 8

    asyncio.run(run())


def test_one_that_rests_meets_nobody_and_waits_for_nobody():
    turns = made(3)

    async def run():
        await turns.open(0, around(3, 3))
        alone = await soon(turns.take(0, 0, asked(meets=False)))
        assert (alone.partner, alone.name, alone.missed) == (0, "", False)
        waits = await begun(turns.take(2, 0, asked()))
        assert not waits.done()
        assert (await soon(turns.take(1, 0, asked(meets=False)))).number == 1

    asyncio.run(run())


def test_steps_of_all_turns_before_are_told():
    turns = made(2)

    async def run():
        await turns.open(0, around(2, 3))
        first = await soon(turns.take(0, 0, asked(env_steps=3, meets=False)))
        second = await soon(turns.take(1, 0, asked(env_steps=4, meets=False)))
        return [first.env_steps, second.env_steps]

    assert asyncio.run(run()) == [0, 3]


def test_one_that_is_lost_is_met_no_more_and_its_turn_ends():
    """By the driver's word, or by that of who has found it so."""
    turns = made(3)

    async def run():
        await turns.open(0, [[1, 0, 1]] * 5)
        await soon(turns.take(1, 0, asked()))
        waits = await begun(turns.take(2, 0, asked()))
        assert not waits.done()
        await turns.lose(1)
        grant = await waits
        assert (grant.partner, grant.missed) == (2, True)
        # What it had on its way comes late.
        await turns.done(1, 0, missed=False)
        assert await soon(turns.take(1, 0, asked(1))) is None
        place = await turns.place(1)
        assert place == (1, 2, 20, 1)
        await turns.join(1, "another", place.number)
        met = await soon(turns.take(0, 0, asked()))
        assert (met.partner, met.name, met.missed) == (1, "another", False)
        await turns.done(0, 0, missed=True)
        assert (await soon(turns.take(0, 0, asked(1)))).missed
        again = await soon(turns.take(1, 1, asked(1, meets=False)))
        assert again.number == 4
        return turns._taken

    taken = asyncio.run(run())
    assert taken[-1] == (1, 1, 1, 2, 1)
