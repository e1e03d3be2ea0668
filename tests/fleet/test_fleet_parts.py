"""The driver's side of a fleet, with actors that are no processes."""

import asyncio
import socket
import threading
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from fakes import HELLO, HERE, SHOWN, FakeCall, FakeCluster, FakePublished, slot

from jaxrl_par import random
from jaxrl_par.bridge.generations.evaluator import Evaluator, EvaluatorState, Task
from jaxrl_par.bridge.supervision import Activity, DeadlineError, Stopped
from jaxrl_par.bridge.unrolled import ActorState, Episodes, Unrolled
from jaxrl_par.errors import RefusedError
from jaxrl_par.fleet import cluster, connection, recipe
from jaxrl_par.fleet.arrays import on_host, own, own_on
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.fleet.evaluator_proxy import FleetEvaluator
from jaxrl_par.fleet.messages import (
    Failed,
    Hello,
    NoParameters,
    Reply,
    Started,
    failed,
)
from jaxrl_par.fleet.parameters import Holder
from jaxrl_par.fleet.proxy import FleetActor
from jaxrl_par.fleet.published import Published
from jaxrl_par.fleet.roles import Evaluating
from jaxrl_par.loops.generations import Played
from jaxrl_par.types import TimeStep


def actor(answers: dict[str, Any]) -> FleetActor:
    place, _ = slot(HELLO | answers)
    activity = Activity("actor 0", 60.0)
    device = jax.devices("cpu")[0]
    return FleetActor(
        0, random.key(0), device, activity, slot=place, thread=0, unroll_length=5,
        published=FakePublished(), exact=False,
    )  # fmt: skip


def state(unroll: int, generation: int) -> ActorState:
    flags: Any = np.zeros(2, np.bool_)
    step, sums = TimeStep(flags, flags, flags), np.zeros(2, np.float32)
    return ActorState(np.int32(unroll), np.int32(generation), step, (), sums, sums, ())


def started(unroll: int = 0, generation: int = 0) -> Reply:
    after = state(unroll, generation)
    return Reply(Started(SHOWN, after, True), None, 0, {})


def unrolled(number: int, generation: int = 0, index: int = 0) -> Reply:
    last = np.zeros((6, 2), np.bool_)
    last[3, 1] = True
    trajectory: Any = SimpleNamespace(steps=SimpleNamespace(last=last))
    after, episodes = state(number + 1, generation), Episodes(0.0, 0.0, 0)
    item = Unrolled(index, number, generation, 0, trajectory, episodes, {}, after)
    return Reply(item, None, 10, {"acting": 1.0})


def test_an_unroll_is_accepted_once_and_in_its_turn():
    """What comes twice, late, or for another is not learned from."""
    replies = [started(), unrolled(0), unrolled(0)]
    member = actor({"member": lambda *_: (replies.pop(0),)})
    member.start(random.key(1))
    assert member.unroll(None, 0).unroll == 0
    assert (member.rows, member.env_steps, member.next_unroll) == (10, 9, 1)
    with pytest.raises(RuntimeError, match=r"\(0, 0, 0\) came, and \(0, 0, 1\) is due"):
        member.unroll(None, 0)


@pytest.mark.parametrize("reply", [unrolled(0, generation=1), unrolled(0, index=1)])
def test_an_unroll_of_another_life_is_refused(reply):
    replies = [started(), reply]
    member = actor({"member": lambda *_: (replies.pop(0),)})
    member.start(random.key(1))
    with pytest.raises(RuntimeError, match="is not learned from"):
        member.unroll(None, 0)
    assert member.next_unroll == 0


def test_what_is_lost_unseen_counts_as_a_whole_unroll():
    replies = [(started(),), cluster.LostError("it died")]
    member = actor({"member": lambda *_: replies.pop(0)})
    member.start(random.key(1))
    with pytest.raises(cluster.LostError, match="process 1 on here is lost: it died"):
        member.unroll(None, 0)
    assert member.rows == member.rows_in_progress == 5 * 2


def test_what_raised_comes_with_its_rows_and_its_place():
    error = ZeroDivisionError("broken")
    error.add_note("in step 3")
    problem = failed(error, "process 1 on here")
    replies = [started(), Reply(None, problem, 4, {})]
    member = actor({"member": lambda *_: (replies.pop(0),)})
    member.start(random.key(1))
    with pytest.raises(ZeroDivisionError, match="broken") as told:
        member.unroll(None, 0)
    notes = told.value.__notes__
    assert notes[0] == "in step 3" and "process 1 on here. There:" in notes[1]
    assert member.rows == member.rows_in_progress == 4


def test_an_error_that_cannot_be_sent_is_told():
    class LocalError(Exception):
        pass

    told = failed(LocalError("of a class that nobody has"), "there")
    assert told.error is None
    error = told.as_error()
    assert type(error) is RuntimeError
    assert str(error) == "LocalError: of a class that nobody has"
    unknown = Failed(b"no pickle", "KeyError: 1", "", "there").as_error()
    assert str(unknown) == "KeyError: 1"


def test_an_actor_that_is_cancelled_waits_no_longer():
    replies = [(started(),), None]
    member = actor({"member": lambda *_: replies.pop(0)})
    member.start(random.key(1))
    member.cancel()
    with pytest.raises(Stopped):
        member.unroll(None, 0)


def test_a_slot_makes_another_process_after_one_that_is_condemned():
    place, there = slot(HELLO)
    first = place.acquire(lambda: None)
    assert place.acquire(lambda: None) is first
    place.condemn(first)
    assert not place.is_current(first)
    second = place.acquire(lambda: None)
    assert (first.incarnation, second.incarnation) == (0, 1)
    assert [x.killed for x in there.made] == [True, False]
    # Of one that was replaced, nothing more can be said.
    place.condemn(first)
    assert place.is_current(second)


@pytest.mark.parametrize("field_name", recipe.Software._fields)
def test_a_node_with_other_software_is_refused(field_name):
    other = HERE._replace(**{field_name: "0.0.1"})
    place, there = slot({"hello": (Hello("actor 0, process 1 on b", 1, other),)})
    ours = getattr(HERE, field_name)
    said = f"process 1 on b: {field_name} is 0.0.1 there and {ours} here"
    with pytest.raises(RefusedError, match=said.replace(".", r"\.").replace("+", ".")):
        place.acquire(lambda: None)
    assert there.made[0].killed


def test_a_node_that_lacks_a_module_is_refused_by_its_name():
    missing = failed(ModuleNotFoundError("No module named 'arm'"), "process 1 on b")
    place, _ = slot(HELLO | {"build": (missing,)})
    with pytest.raises(RefusedError, match=r"cannot load .* No module named 'arm'"):
        place.acquire(lambda: None)


def test_a_node_that_lacks_a_simulator_says_so_before_training():
    """What makes environments is there, and what it needs only on other nodes."""
    missing = ModuleNotFoundError("No module named 'ale_py'")
    told = failed(missing, "actor 0, process 1 on b")
    member = actor({"member": (Reply(None, told, 0, {}),)})
    with pytest.raises(ModuleNotFoundError, match="ale_py") as found:
        member.start(random.key(1))
    assert "in actor 0, process 1 on b. There:" in found.value.__notes__[0]


def test_an_address_of_something_else_is_refused(monkeypatch):
    """A port that another program uses, or a cluster with another token."""

    def init(**options):
        raise ConnectionError("ray client: no GCS answers\nand much more")

    there: Any = SimpleNamespace(init=init)
    monkeypatch.setattr(connection, "ray", there)
    said = "127.0.0.1:80 is no Ray cluster that can be joined, or has another token"
    with pytest.raises(RefusedError, match=said) as told:
        connection._joined("127.0.0.1:80", {})
    assert "ConnectionError: ray client: no GCS answers" in str(told.value)
    assert "much more" not in str(told.value)


def test_a_process_that_is_connected_elsewhere_joins_no_other_cluster(monkeypatch):
    context = SimpleNamespace(gcs_address="here:1")
    there: Any = SimpleNamespace(
        is_initialized=lambda: True, get_runtime_context=lambda: context
    )
    monkeypatch.setattr(connection, "ray", there)
    made = connection._Connection()
    with pytest.raises(RefusedError, match="connected to here:1 already"):
        made.enter(FleetConfig(address="there:2"), 1.0)
    made.enter(FleetConfig(address="here:1"), 1.0)
    made.leave()


def test_a_cluster_without_room_is_told(monkeypatch):
    monkeypatch.setattr(FakeCall, "ready", lambda self, seconds: False)
    place, _ = slot(HELLO, start_seconds=1e-3)
    said = "did not start within 0.001 s; 0 of 2 processors are free, and it needs 1"
    with pytest.raises(DeadlineError, match=said):
        place.acquire(lambda: None)


def test_a_version_enters_the_store_once_and_a_new_holder_gets_what_is_kept():
    there: Any = FakeCluster({})
    published = Published(there, restarts=1)
    for version in range(3):
        published.publish(version, {"w": np.full(2, version)}, [version - 1, version])
    old, name = there.made[0], published.holder
    told = [(0, [0], [0]), (1, [1], [0, 1]), (2, [2], [1, 2])]
    assert [x[1:] for x in old.asked] == told
    published.replace(name, "it died")
    published.replace(name, "it died")  # another actor, which asked the same one
    new = there.made[1]
    assert old.killed and len(there.made) == 2 and published.holder != name
    assert [x[1:3] for x in new.asked] == [(1, [1]), (2, [2])]
    assert len(there.stored) == 3 and published.lost == 1
    with pytest.warns(UserWarning, match="a new holder of the parameters: it died"):
        published.publish(3, {"w": np.zeros(2)}, [3])
    with pytest.raises(cluster.LostError, match="the parameters cannot be had: again"):
        published.replace(published.holder, "again")


def test_a_holder_gives_the_version_that_is_due_or_the_newest():
    async def story():
        holder = Holder()
        early = asyncio.create_task(holder.pull(1, exact=True))
        await holder.publish(0, ["a"], [0])
        assert not early.done()
        # In another order: what was overtaken is waited for, and drops nothing newer.
        await holder.publish(2, ["c"], [1, 2])
        for _ in range(10):
            await asyncio.sleep(0)
        assert not early.done()
        await holder.publish(1, ["b"], [0, 1])
        assert await early == (1, ["b"])
        assert await holder.pull(1, exact=False) == (2, ["c"])
        await holder.publish(3, ["d"], [2, 3])
        with pytest.raises(LookupError, match="version 1 is not kept"):
            await holder.pull(1, exact=True)
        # So late that nobody needs it: it is not held again.
        await holder.publish(1, ["b"], [0, 1])
        with pytest.raises(LookupError, match="version 1 is not kept"):
            await holder.pull(1, exact=True)

    asyncio.run(story())


class FakeEvaluator(Evaluator):
    """Gives what it was to play."""

    def __init__(self):
        self.next_unroll = 0

    def evaluate(self, task):
        self.next_unroll += 1
        return Played(*[task] * len(Played._fields))

    start = resume = state = where = close = lambda self, *_: None


def test_a_part_is_played_with_the_parameters_of_its_generation_or_not_at_all():
    role, member = object.__new__(Evaluating), FakeEvaluator()
    newest = 7, {"w": np.zeros(2)}
    role._puller = SimpleNamespace(pull=lambda holder, at_least, exact: newest)
    done = role.work(member, 0, "ours", 7, 3, np.int32(9))
    assert done.own == Task(7, 3, np.int32(9), newest[1]) and member.next_unroll == 1
    # A generation that is over: nothing is sent, and the next part is due.
    assert role.work(member, 1, "ours", 6, 3, np.int32(9)) is None
    assert member.next_unroll == 2


def test_an_evaluator_elsewhere_asks_for_part_after_part():
    """As often as it takes to find who holds the parameters."""
    place, there = slot(HELLO)
    replies = [
        Reply(Started(SHOWN, EvaluatorState(0, 0), True), None, 0, {}),
        Reply(NoParameters("it died"), None, 0, {}),
        Reply(Played(*[np.zeros(2)] * 6), None, 8, {"playing": 1.0}),
        Reply(None, None, 0, {}),
    ]
    there.answers = HELLO | {"member": lambda *_: (replies.pop(0),)}
    published, asked = FakePublished(), []
    published.replace = lambda holder, why: asked.append((holder, why))
    member = FleetEvaluator(
        0, random.key(0), jax.devices("cpu")[0], Activity("worker 0", 60.0),
        slot=place, thread=0, unroll_length=0, published=published,
    )  # fmt: skip
    member.start(random.key(1))
    task = Task(4, 1, np.int32(9))
    played = member.evaluate(task)
    assert played is not None and played.fitness.flags.writeable
    assert asked == [("ours", "it died")] and member.rows == 8
    assert member.evaluate(task) is None and member.next_unroll == 2
    works = [x[3:] for x in there.made[0].asked if x[2:3] == ("work",)]
    assert works == [(n, "ours", 4, 1, np.int32(9)) for n in (0, 0, 1)]


def test_arrays_are_sent_as_they_are_and_own_themselves():
    """TRAP F7: an array aligned to 64 bytes would be shared by JAX."""
    memory = np.zeros(4096 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    arrived = memory[start : start + 4096].view(np.float32)
    arrived[:] = 1
    ours = own_on(jax.devices("cpu")[0], {"x": arrived, "key": random.key(3)})
    kept = own({"x": arrived})
    arrived[:] = 2
    assert float(ours["x"][0]) == 1 and kept["x"][0] == 1
    sent = on_host(ours)
    assert isinstance(sent["x"], np.ndarray)
    np.testing.assert_array_equal(
        jax.random.key_data(own(sent)["key"]), jax.random.key_data(random.key(3))
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"address": "head"}, "address must be HOST:PORT, got head"),
        ({"address": "head:0"}, "address must be HOST:PORT, got head:0"),
        ({"threads_per_process": 0}, "threads_per_process must be at least 1, got 0"),
        ({"object_store_mb": 1}, "object_store_mb must be at least 80, got 1"),
        ({"start_seconds": 0.0}, "start_seconds must be above 0, got 0.0"),
    ],
)
def test_what_is_out_of_range_is_said(options, said):
    assert said in "; ".join(FleetConfig(**options).problems())


def test_an_address_where_nobody_listens_is_refused_in_time():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        with pytest.raises(RefusedError, match=f"nobody answers at 127.0.0.1:{port}"):
            connection.wait_for(f"127.0.0.1:{port}", 0.01)


@contextmanager
def answering(greeting: bytes | None):
    """A program that says this to whoever comes; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def serve():
            with suppress(OSError):
                while True:
                    kept.append(server.accept()[0])
                    kept[-1].sendall(greeting or b"")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in kept:
            one.close()


@pytest.mark.parametrize("greeting", [None, b"HTTP/1.1 400 Bad Request"])
def test_a_port_that_something_else_uses_is_refused_in_time(greeting):
    """Ray would wait for a quarter of an hour for one that says nothing."""
    with answering(greeting) as address:
        said = f"nobody answers at {address} within 0.2 s"
        with pytest.raises(RefusedError, match=said):
            connection.wait_for(address, 0.2)


def test_who_greets_as_ray_does_is_waited_for_no_longer():
    with answering(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])) as address:
        connection.wait_for(address, 20.0)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(connection.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RefusedError, match=r"pip install 'jaxrl-par\[ray\]'"):
        connection.import_ray(FleetConfig())


def test_a_digest_is_of_names_and_texts(tmp_path):
    (tmp_path / "a.py").write_text("x = 1")
    first = recipe.digest(tmp_path)
    assert recipe.digest(tmp_path) == first
    (tmp_path / "a.py").write_text("x = 2")
    assert recipe.digest(tmp_path) != first
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    (tmp_path / "b.py").write_text("x = 1")
    assert recipe.digest(tmp_path) != first


def test_processes_have_one_device_and_the_numbers_of_this_one(monkeypatch):
    count = "--xla_force_host_platform_device_count=8"
    monkeypatch.setenv("XLA_FLAGS", f"--a=1 {count} --b=2")
    given = recipe.settings(3, shares_disk=False)
    assert given.environ["XLA_FLAGS"].split() == ["--a=1", "--b=2"]
    assert (given.environ["JAX_PLATFORMS"], given.environ["NPROC"]) == ("cpu", "3")
    assert "jax_enable_x64" in given.jax and not given.path
    assert "jax_compilation_cache_dir" not in given.jax
    assert recipe.settings(3, shares_disk=True).path
