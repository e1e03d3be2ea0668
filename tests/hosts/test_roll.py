"""What is wrong with the processes of a run is told before any of them begins."""

import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from jaxrl_par.hosts.config import HostsConfig
from jaxrl_par.hosts.roll import Peers, call_roll, differing

SAME = {"seed": 1, "version of jax": "0.10"}


def config(port: int, process: int, processes: int = 2, seconds: float = 20.0):
    where = f"127.0.0.1:{port}"
    return HostsConfig(where, processes, process, join_seconds=seconds)


@pytest.fixture
def port() -> int:
    """A free one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def call(*calls: tuple[HostsConfig, dict]) -> list[Future[Peers]]:
    """Each in a thread of its own, to the end of all."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [pool.submit(call_roll, *one) for one in calls]


def refusals(calls: list[Future[Peers]]) -> list[str]:
    return [str(one.exception()) for one in calls]


def test_all_come_together_and_stay_connected(port):
    calls = call(*[(config(port, i, 3), SAME) for i in range(3)])
    first, *others = [one.result() for one in calls]
    assert first.process_id == 0
    assert sorted(first.sockets) == [1, 2]
    for peers in others:
        assert list(peers.sockets) == [0]
        first.sockets[peers.process_id].sendall(b"x")
        assert peers.sockets[0].recv(1) == b"x"
    # The port is free for jax's coordinator, which listens there next.
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
    for peers in (first, *others):
        for peer in peers.sockets.values():
            peer.close()


@pytest.mark.parametrize(
    ("name", "value"), [("seed", 2), ("version of jax", "0.9"), ("more", 1)]
)
def test_what_differs_is_named_in_both(port, name, value):
    other = {**SAME, name: value}
    told = refusals(call((config(port, 0), SAME), (config(port, 1), other)))
    assert told[0] == told[1]
    line = f"\n  {name}: {SAME.get(name)!r} in 0, {value!r} there"
    assert told[0] == f"process 1 (127.0.0.1) differs from process 0:{line}"


def test_all_must_know_of_as_many_processes(port):
    told = refusals(call((config(port, 0, 2), SAME), (config(port, 1, 3), SAME)))
    assert told[0].endswith("hosts.num_processes: 2 in 0, 3 there")


def test_a_process_id_given_twice_is_refused_by_all(port):
    told = refusals(call(*[(config(port, i, 3), SAME) for i in (0, 1, 1)]))
    assert told[0] == "process 1 (127.0.0.1): there are two of this hosts.process_id"
    assert len(set(told)) == 1


def test_a_second_process_0_finds_the_port_in_use(port):
    told = refusals(call(*[(config(port, 0, 2, 1.0), SAME) for _ in range(2)]))
    assert sorted(told) == [
        f"process 0 cannot listen at hosts.coordinator 127.0.0.1:{port}: Address"
        " already in use",
        f"process 1 of 2 did not come to 127.0.0.1:{port} within 1 s",
    ]


@pytest.mark.slow
def test_who_is_missing_is_told_to_those_who_came(port):
    calls = [(config(port, i, 4, 1.5), SAME) for i in (0, 2)]
    told = refusals(call(*calls))
    assert (
        told[0] == f"processes 1, 3 of 4 did not come to 127.0.0.1:{port} within 1.5 s"
    )
    missing = f"processes 1, 3 of 4 did not come to 127.0.0.1:{port} within 1.5 s"
    assert told[0] == missing
    assert told[0] == told[1]


def test_an_address_that_nobody_answers_at_has_a_time_limit(port):
    (told,) = refusals(call((config(port, 1, 2, 1.0), SAME)))
    assert told.startswith(
        f"nobody answered at hosts.coordinator 127.0.0.1:{port} within 1 s"
    )


def test_another_program_at_the_address_is_no_process_0(port):
    with socket.create_server(("127.0.0.1", port)) as server:

        def answer():
            peer, _ = server.accept()
            with peer:
                peer.recv(10)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        (told,) = refusals(call((config(port, 1), SAME)))
        thread.join()
    assert "answers, but not as a process 0 that waits for others" in told


@pytest.mark.parametrize(
    "words", [b"", b"GET / HTTP/1.1\r\n", b"[]\n", b'{"who": "jaxrl_par"}\n', b"\xff\n"]
)
def test_a_stranger_is_not_taken_for_a_process(port, words):
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(call_roll, config(port, 0), SAME)
        while True:
            try:
                stranger = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                pass
        stranger.sendall(words)
        stranger.close()
        second = pool.submit(call_roll, config(port, 1), SAME)
        assert list(first.result().sockets) == [1]
        for peers in (first.result(), second.result()):
            peers.sockets.popitem()[1].close()


def test_a_host_without_an_address_is_refused():
    one = HostsConfig("no-such-host.invalid:7000", 2, 0)
    with pytest.raises(ValueError, match=r"no-such-host\.invalid is no host"):
        call_roll(one, SAME)


def test_differences_are_listed_by_name():
    assert differing({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == [
        "b: 2 in 0, 3 there",
        "c: None in 0, 4 there",
    ]
