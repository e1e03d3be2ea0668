"""What stores promise, with gradients made by hand: nothing is lost, nobody sees half
of an update, and versions count what was applied."""

import gc
import threading
import time
import weakref
from collections import deque
from contextlib import contextmanager
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_workers import ADDS, SIZE, TOY, Toy

from jaxrl_par.bridge.parameter_server.shards import Shards
from jaxrl_par.bridge.parameter_server.stores import (
    Hogwild,
    Lock,
    Push,
    Server,
    Store,
)
from jaxrl_par.bridge.parameter_server.stores.store import Applied, applied, mean
from jaxrl_par.bridge.reports import Times
from jaxrl_par.bridge.supervision import Supervisor
from jaxrl_par.loops import Gradient
from jaxrl_par.loops.asynchronous import StalenessConfig

KINDS = {
    "lock": (Lock, 1), "hogwild": (Hogwild, 1), "server": (Server, 1),
    "server of 3": (Server, 3),
}  # fmt: skip
EXACT = ["lock", "server", "server of 3"]
by_kind = pytest.mark.parametrize("kind", KINDS)
by_exact_kind = pytest.mark.parametrize("kind", EXACT)
ZEROS = Toy(jnp.zeros(SIZE), jnp.zeros(SIZE), jnp.int32(0))


def given(grads):
    return Gradient(grads, {}, np.int32(5), np.bool_(True))


@cache
def shards_of(agent, num_shards, config=StalenessConfig()):
    made = Shards(agent.apply, ZEROS, ZEROS.params, num_shards, config)
    made.compile(ZEROS, given(ZEROS.params))
    return made


class At:
    """A store, and those who work with it."""

    def __init__(self, kind, agent=ADDS, config=StalenessConfig()):
        make, num_shards = KINDS[kind]
        self.supervisor = Supervisor(20.0)
        self.shards = shards_of(agent, num_shards, config)
        self.store = make(self.supervisor, self.shards, ZEROS)
        if isinstance(self.store, Server):
            self.store.start()

    def push(self, grads, pulled, worker=0, item=None, after=None):
        push = Push(given(jnp.asarray(grads, jnp.float32)), pulled, item, after)
        self.store.push(worker, push, Times())

    def drain(self):
        taken = self.store.drain()
        return taken.state, taken.updates

    def start(self, count, work):
        """Threads `work(worker)`."""
        for worker in range(count):
            self.supervisor.start(f"worker {worker}", partial(work, worker))


@contextmanager
def at_work(kind, *options):
    at = At(kind, *options)
    with at.supervisor.working():
        yield at
    assert at.supervisor.stop(20.0) == []


def ones(value=1.0):
    return np.full(SIZE, value, np.float32)


# Nothing is lost ------------------------------------------------------------------


@pytest.mark.sample(1)
@by_exact_kind
def test_the_sum_of_all_pushes_is_exact(kind):
    """Four threads, 25 gradients each, of integers."""
    with at_work(kind) as at:

        def work(worker):
            for n in range(25):
                pulled = at.store.pull(worker)
                at.push(ones(worker + 10 * n), pulled, worker, (worker, n))

        at.start(4, work)
        at.store.admit_until(100)
        state, updates = at.drain()
    total = sum(worker + 10 * n for worker in range(4) for n in range(25))
    np.testing.assert_array_equal(state.params, total)
    assert state.updates == 100
    items = [x.item for x in updates]
    assert sorted(items) == [(worker, n) for worker in range(4) for n in range(25)]
    for worker in range(4):
        assert [n for w, n in items if w == worker] == list(range(25))


def test_a_race_for_different_parameters_has_no_loser():
    """Hogwild is exact where gradients do not meet: each thread has one coordinate."""
    with at_work("hogwild") as at:

        def work(worker):
            for _ in range(25):
                at.push(np.eye(SIZE)[worker], at.store.pull(worker), worker)

        at.start(4, work)
        at.store.admit_until(100)
        state, updates = at.drain()
    np.testing.assert_array_equal(state.params, [25, 25, 25, 25, 0])
    assert state.updates == 100 == len(updates)


@pytest.mark.sample(1)
@by_exact_kind
def test_updates_are_told_in_the_order_in_which_they_were_made(kind):
    """With momentum, another order would end elsewhere."""
    with at_work(kind, TOY) as at:

        def work(worker):
            for n in range(5):
                grads = np.sin(np.arange(SIZE) * (worker + 4 * n + 1)) * 2.0**n
                at.push(grads, at.store.pull(worker), worker, grads)

        at.start(3, work)
        updates = []
        for target in (1, 7, 15):
            at.store.admit_until(target)
            state, new = at.drain()
            updates += new
            assert len(updates) == target
    expected = ZEROS
    for update in updates:
        expected = jax.jit(TOY.apply)(
            expected, jnp.asarray(update.item, jnp.float32), {}
        )
    np.testing.assert_array_equal(state.params, expected.params)
    np.testing.assert_array_equal(state.trace, expected.trace)


# Who is let in --------------------------------------------------------------------


@pytest.mark.sample(2)
@by_kind
def test_no_more_than_so_many_are_let_in(kind):
    with at_work(kind) as at:

        def work(worker):
            while True:
                at.push(ones(), at.store.pull(worker), worker)

        at.start(4, work)
        for target in (3, 4, 9):
            at.store.admit_until(target)
            state, _ = at.drain()
            for _ in range(3):
                # Whoever wants to, has the time.
                time.sleep(0.03)
                assert at.store.pull(7).pushes == (target,) * at.shards.num_shards
                assert at.store.pull(7).state.updates == state.updates
        with pytest.raises(AssertionError):
            np.testing.assert_array_equal(state.params, 0)


@by_kind
def test_a_push_waits_until_the_store_is_open(kind):
    with at_work(kind) as at:
        done = []
        at.start(1, lambda _: done.append(at.push(ones(), at.store.pull(0))))
        time.sleep(0.1)
        assert not done and at.store.pull(1).pushes[0] == 0
        at.store.admit_until(1)
        state, updates = at.drain()
    assert state.params[0] == 1 and len(updates) == 1


@by_kind
def test_take_waits_for_all_and_gives_each_once(kind):
    with at_work(kind) as at:
        at.store.admit_until(2)
        at.push(ones(), at.store.pull(0), item="a")
        at.start(
            1, lambda _: time.sleep(0.1) or at.push(ones(), at.store.pull(0), 0, "b")
        )
        _, updates = at.drain()
        assert [x.item for x in updates] == ["a", "b"]
        _, updates = at.drain()
        assert updates == []
        at.store.admit_until(3)
        at.push(ones(), at.store.pull(0), item="c")
        state, updates = at.drain()
        assert [x.item for x in updates] == ["c"]
    np.testing.assert_array_equal(state.params, 3)


# Versions -------------------------------------------------------------------------


def rounds(at, num_workers, count=3):
    """Lags, and which were rejected, of workers that pull and push together."""
    lags, rejected = [], []
    for n in range(1, count + 1):
        pulled = [at.store.pull(w) for w in range(num_workers)]
        at.store.admit_until(n * num_workers)
        for worker in range(num_workers):
            at.push(ones(), pulled[worker], worker)
        _, updates = at.drain()
        lags += [float(x.metrics["lag"]) for x in updates]
        rejected += [float(x.metrics["rejected"]) for x in updates]
    return lags, rejected


@by_kind
@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_who_pulled_together_is_staler_one_by_one(kind, num_workers):
    """Gorila: 0, 1, .., W - 1, with any number of shards."""
    with at_work(kind) as at:
        lags, rejected = rounds(at, num_workers)
        assert lags == list(range(num_workers)) * 3
        assert rejected == [0.0] * 3 * num_workers
        pulled = at.store.pull(0)
    assert pulled.versions == pulled.pushes == (3 * num_workers,) * at.shards.num_shards


@pytest.mark.sample(3)
@by_kind
@pytest.mark.parametrize("most", [0, 1, 2])
def test_who_is_too_stale_is_rejected_and_is_no_version(kind, most):
    """W - 1 - m of a round: rejected ones make nobody staler."""
    with at_work(kind, ADDS, StalenessConfig("reject", most)) as at:
        lags, rejected = rounds(at, 4)
        assert lags == [min(n, most + 1) for n in range(4)] * 3
        assert rejected == ([0.0] * (most + 1) + [1.0] * (3 - most)) * 3
        pulled = at.store.pull(0)
    num_shards = at.shards.num_shards
    assert pulled.pushes == (12,) * num_shards
    assert pulled.versions == (3 * (most + 1),) * num_shards
    np.testing.assert_array_equal(pulled.state.params, 3 * (most + 1))


@by_kind
def test_what_is_not_finite_is_a_push_and_no_version(kind):
    with at_work(kind) as at:
        at.store.admit_until(2)
        bad = ones()
        bad[-1] = np.inf
        at.push(bad, at.store.pull(0))
        at.push(ones(), at.store.pull(0))
        state, updates = at.drain()
        assert [x.metrics["skipped"] for x in updates] == [1, 0]
        pulled = at.store.pull(0)
    num_shards = at.shards.num_shards
    assert pulled.pushes == (2,) * num_shards and pulled.versions == (1,) * num_shards
    np.testing.assert_array_equal(state.params, 1)
    assert [x.metrics["lag"] for x in updates] == [0, 0]


@by_kind
def test_who_pushed_sees_that_in_the_next_pull(kind, monkeypatch):
    with at_work(kind) as at:
        apply = at.shards.apply

        def slowly(*arguments):
            time.sleep(0.02)
            return apply(*arguments)

        monkeypatch.setattr(at.shards, "apply", slowly)
        at.store.admit_until(6)
        for n in range(6):
            pulled = at.store.pull(n % 2)
            at.push(ones(), pulled, n % 2)
            mine = at.store.pull(n % 2)
            assert mine.pushes == (n + 1,) * at.shards.num_shards
            np.testing.assert_array_equal(mine.state.params, n + 1)


def test_others_do_not_wait_for_a_shard(monkeypatch):
    """They see each shard as it is, with versions of its own."""
    with at_work("server of 3") as at:
        apply, go = at.shards.apply, threading.Event()

        def apply_but_one(shard, part, staleness):
            # Shards are of sizes 2, 1 and 2, and one more.
            if part.grads.shape == (2,):
                assert go.wait(20)
            return apply(shard, part, staleness)

        monkeypatch.setattr(at.shards, "apply", apply_but_one)
        at.store.admit_until(3)
        before = at.store.pull(0)
        for _ in range(3):
            at.push(ones(), before, 0)
        end = time.monotonic() + 20
        while (seen := at.store.pull(1)).pushes != (3, 0, 3):
            assert time.monotonic() < end
        np.testing.assert_array_equal(seen.state.params, [3, 3, 0, 3, 3])
        assert seen.versions == (3, 0, 3)
        at.store.admit_until(4)
        at.push(ones(), seen, 1)
        go.set()
        state, updates = at.drain()
    np.testing.assert_array_equal(state.params, 4)
    # Means over shards; the last one was 3 updates late in one of them.
    assert [x.metrics["lag"] for x in updates] == [0, 1, 2, 1]


# Memory ---------------------------------------------------------------------------


@by_kind
def test_what_was_given_out_stays_as_it_is(kind):
    with at_work(kind) as at:
        at.store.admit_until(2)
        start = at.store.pull(0)
        at.push(ones(), start)
        at.push(ones(), at.store.pull(0))
        state, _ = at.drain()
        at.store.admit_until(4)
        for _ in range(2):
            at.push(ones(), at.store.pull(0))
        at.drain()
    assert jax.tree.all(jax.tree.map(lambda x: isinstance(x, jax.Array), state))
    np.testing.assert_array_equal(start.state.params, 0)
    np.testing.assert_array_equal(state.params, 2)
    np.testing.assert_array_equal(ZEROS.params, 0)


@pytest.mark.sample(1)
@by_kind
def test_no_gradient_and_no_old_state_is_kept(kind):
    """However many pushes there are before somebody takes them."""
    with at_work(kind) as at:
        kept = []
        at.store.admit_until(20)
        for n in range(20):
            pulled = at.store.pull(0)
            grads, after = jnp.full(SIZE, float(n)), jnp.full(SIZE, -1.0)
            kept += map(weakref.ref, (grads, pulled.state.params, after))
            at.push(grads, pulled, 0, n, after)
        assert at.store.pull(0).pushes == (20,) * at.shards.num_shards
        del grads, pulled, after
        gc.collect()
        # The newest state of the worker, what is shared, and what a shard's thread
        # had in its hands last.
        assert sum(ref() is not None for ref in kept) <= 4
        assert [x.item for x in at.drain()[1]] == list(range(20))


@by_kind
def test_the_state_of_each_worker_is_that_after_its_last_push(kind):
    with at_work(kind) as at:
        for target, workers in ((3, (0, 1, 0)), (4, (2,)), (4, ())):
            at.store.admit_until(target)
            for n, worker in enumerate(workers):
                at.push(ones(), at.store.pull(worker), worker, after=(target, n))
            taken = at.store.drain()
            assert len(taken.updates) == len(workers)
            expected = {0: (3, 2), 1: (3, 1)} | ({2: (4, 0)} if target == 4 else {})
            assert taken.workers == expected


def test_jax_gets_a_copy_of_what_is_written_in_place():
    """On CPU it would otherwise compute with memory that changes meanwhile."""
    with at_work("hogwild") as at:
        at.store.admit_until(1)
        pulled = at.store.pull(0)
        at.push(ones(), pulled)
        state, _ = at.drain()
    for given in (pulled.state, state):
        for leaf in jax.tree.leaves(given):
            x = np.asarray(leaf)
            assert not any(np.shares_memory(x, y) for y in at.store._shared._arrays)


# Errors ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lock", "hogwild"])
def test_another_is_let_in_instead_of_who_failed(kind, monkeypatch):
    with at_work(kind) as at:
        at.store.admit_until(1)
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="mine"):
            patch.setattr(at.shards, "apply", raising)
            at.push(ones(), at.store.pull(0))
        assert at.store.pull(0).pushes == (0,)
        pushed = []

        def work(worker):
            pushed.append(at.push(ones(), at.store.pull(worker + 1), worker + 1))

        at.start(1, work)
        state, updates = at.drain()
    assert len(updates) == 1 and state.params[0] == 1


def test_a_lock_that_was_kept_is_let_go_of_by_the_next_push(monkeypatch):
    """Of a thread that was killed before it could."""
    with at_work("lock") as at:
        at.store.admit_until(3)
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="mine"):
            patch.setattr(at.store, "_release", raising)
            at.push(ones(), at.store.pull(0))
        at.push(ones(), at.store.pull(0))
        at.start(1, lambda _: at.push(ones(), at.store.pull(1), 1))
        state, updates = at.drain()
    assert len(updates) == 3 and state.params[0] == 3


def test_who_was_killed_before_the_push_does_not_wait_for_it():
    with at_work("server") as at:

        class Broken(deque):
            append = raising

        at.store.admit_until(1)
        line, at.store._line = at.store._line, Broken()
        with pytest.raises(RuntimeError, match="mine"):
            at.push(ones(), at.store.pull(0))
        at.store._line = line
        assert at.store.pull(0).pushes == (0,)
        at.push(ones(), at.store.pull(0))
        assert len(at.drain()[1]) == 1


def test_who_was_killed_at_the_door_of_hogwild_comes_in_again():
    with at_work("hogwild") as at:
        at.store.admit_until(1)
        # The first of these was let in, and its thread ended before it could update.
        assert at.store._admit(0) and at.store._admit(0)
        assert not at.store._admit(1)
        at.push(ones(), at.store.pull(0))
        assert len(at.drain()[1]) == 1


def raising(*arguments):
    raise RuntimeError("mine")


def test_an_error_of_a_shard_reaches_the_owner(monkeypatch):
    with at_work("server of 3") as at:
        monkeypatch.setattr(at.shards, "apply", raising)
        at.store.admit_until(1)
        at.push(ones(), at.store.pull(0))
        with pytest.raises(RuntimeError, match="mine"):
            at.drain()


# What is counted ------------------------------------------------------------------


def test_races_are_counted(monkeypatch):
    """Another writes while the first one computes."""
    with at_work("hogwild") as at:
        at.store.admit_until(4)
        at.push(ones(), at.store.pull(0))
        assert at.store.statistics()["raced_share"] == 0
        apply = at.shards.apply

        def meanwhile(*arguments):
            monkeypatch.setattr(at.shards, "apply", apply)
            at.push(ones(), at.store.pull(1), 1, "other")
            return apply(*arguments)

        monkeypatch.setattr(at.shards, "apply", meanwhile)
        at.push(ones(), at.store.pull(0), item="first")
        at.push(ones(), at.store.pull(0))
        state, updates = at.drain()
        counted = at.store.statistics()
    assert [x.item for x in updates] == [None, "other", "first", None]
    np.testing.assert_array_equal(state.params, 4)
    assert counted == {"raced_share": 0.25, "lost_updates": 0.0, "lost_share": 0.0}


def test_lost_writes_are_counted():
    with at_work("hogwild") as at:
        at.store.admit_until(4)
        for n in range(4):
            at.push(ones(), at.store.pull(0))
            if n == 1:
                # As another would that had read before all of them.
                for x in at.store._shared._arrays[:2]:
                    x[-1] = 0
        at.drain()
        counted = at.store.statistics()
        assert counted["lost_updates"] == 2 and counted["lost_share"] == 0.5
        at.drain()
        assert at.store.statistics()["lost_updates"] == 2


def test_the_queue_of_a_server_is_as_deep_as_pushes_that_wait(monkeypatch):
    with at_work("server") as at:
        apply, go = at.shards.apply, threading.Event()

        def late(*arguments):
            assert go.wait(20)
            return apply(*arguments)

        monkeypatch.setattr(at.shards, "apply", late)
        at.store.admit_until(3)
        pulled = at.store.pull(0)
        at.push(ones(), pulled)
        end = time.monotonic() + 20
        while at.store._taken < 1:
            assert time.monotonic() < end
            time.sleep(0.001)
        at.push(ones(), pulled)
        at.push(ones(), pulled)
        go.set()
        at.drain()
        # It found 1, then 2, then 1.
        assert at.store.statistics() == {"queue_depth": pytest.approx(4 / 3)}


def test_metrics_of_shards_are_means_and_who_skipped_is_counted():
    metrics = [
        {
            "grad_norm": np.float32(n),
            "skipped": np.float32(n == 2),
            "lag": np.float32(2 * n),
        }
        for n in range(3)
    ]
    assert mean(metrics) == {"grad_norm": 1.0, "skipped": 1.0, "lag": 2.0}
    assert mean(metrics[:1]) is metrics[0]


def test_an_update_is_done_when_it_is_told():
    done = applied(shards_of(ADDS, 1), ZEROS, given(ones(2.0)), 3)
    assert isinstance(done, Applied) and done.applied
    assert done.metrics["lag"] == 3 and done.metrics["skipped"] == 0
    np.testing.assert_allclose(done.metrics["grad_norm"], 2 * np.sqrt(SIZE), rtol=1e-6)
    np.testing.assert_array_equal(done.state.params, 2)


@by_kind
def test_all_are_stores(kind):
    with at_work(kind) as at:
        assert isinstance(at.store, Store)
        assert all(np.isfinite(x) for x in at.store.statistics().values())
