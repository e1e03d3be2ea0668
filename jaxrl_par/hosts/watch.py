"""A thread that ends this process when another one of its run is lost, or when it
hangs itself.

jax's own watch takes minutes, ends with an abort, and does not see a process that is
alive and stuck. Here each process tells process 0, and process 0 all others, every
second that it is there. A connection that closes without a word is a process that
died; one that stays silent is a host that was cut off, or a process that was stopped.
"""

import os
import select
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn

from jaxrl_par.exit_codes import LOST
from jaxrl_par.hosts.roll import Peers

_BEAT, _DONE, _FAILED, _LOST = b".", b"D", b"F", b"L"
_INTERVAL = 1.0
_LAST_WORDS = 0.3
_GRACE = 5.0
"""Seconds in which a process whose peer failed may come to the same error itself."""
_NEWS = 1.0
"""Seconds after an error in which others may say that they had one before."""
_FAREWELL = 2.0
"""Seconds that process 0 waits for the others to end: jax aborts those that find its
coordinator gone."""


class Watch:
    """What this process knows of the others. It starts with the first of `start`."""

    def __init__(self, peers: Peers, silence: float, patience: float):
        """`silence` and `patience` are those of `HostsConfig`."""
        self._me, self._sockets = peers
        self._silence, self._patience = silence, patience
        now = time.monotonic()
        self._heard = dict.fromkeys(self._sockets, now)
        self._failed: dict[int, float] = {}
        self._done: set[int] = set()
        self._border: float | None = now
        self._finished = threading.Event()
        self._all_done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hosts", daemon=True)
        for peer in self._sockets.values():
            peer.setblocking(False)

    def start(self) -> None:
        self._thread.start()

    def border(self) -> None:
        """A chunk begins: patience starts anew."""
        self._border = time.monotonic()

    def rest(self) -> None:
        """There are no more chunks, and nothing that patience would be for."""
        self._border = None

    def wait_for_all(self) -> None:
        """Says that this process is done, and waits until all are."""
        self.rest()
        if self._me:
            self._send_all(_DONE)
        self._all_done.wait()
        if not self._me:
            self._send_all(_DONE)

    def close(self) -> None:
        """Listens no more, after `wait_for_all`."""
        self._finished.set()
        self._thread.join()
        self._close_all()

    def fail(self, code: int | None) -> NoReturn:
        """Ends the process, which met an error; others are told, and end before it if
        they depend on it.

        Args:
          code: with which to end; None for an error that was not foreseen, and may be
            of another process which failed before.
        """
        self.rest()
        self._finished.set()
        self._thread.join()
        if code is None:
            self._hear_of_failures()
        self._send_all(_FAILED)
        self._await_ends(_GRACE + _FAREWELL)
        self._leave()
        os._exit(1 if code is None else code)

    def _watch(self) -> None:
        beat = time.monotonic()
        while not self._finished.is_set():
            started = time.monotonic()
            self._listen(0.2)
            now = time.monotonic()
            if now - started > max(self._silence / 2, 1.0):
                # This process was stopped, and perhaps all were: nobody was silent.
                self._heard = dict.fromkeys(self._heard, now)
                self._border = self._border and self._border + now - started
            if now >= beat:
                self._send_all(_BEAT)
                beat = now + _INTERVAL
            self._judge(now)

    def _judge(self, now: float) -> None:
        """Ends the process if it cannot go on."""
        for number, heard in self._heard.items():
            if now - heard > self._silence:
                self._end(f"process {number} was silent for {self._silence:g} s")
        for number, failed in self._failed.items():
            if now - failed > _GRACE:
                self._end(f"process {number} ended by an error")
        if self._border is not None and now - self._border > self._patience:
            self._end(
                f"a chunk did not come back within hosts.patience = {self._patience:g}"
                f" s in process {self._me}"
            )
        if self._done == self._sockets.keys():
            self._all_done.set()

    def _hear_of_failures(self) -> None:
        """Ends the process if another one failed, of which the word may be on its way:
        a collective can come back with an error before it is there."""
        until = time.monotonic() + _NEWS
        while not self._failed and self._sockets and time.monotonic() < until:
            self._listen(0.2)
        if self._failed:
            self._end(f"process {min(self._failed)} ended by an error")

    def _listen(self, seconds: float) -> None:
        """Hears what has come, and waits for it so long."""
        numbers = {peer: number for number, peer in self._sockets.items()}
        for peer in select.select(list(numbers), [], [], seconds)[0]:
            number = numbers[peer]
            try:
                words = peer.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                words = b""
            self._heard[number] = time.monotonic()
            if _LOST in words:
                self._end(f"process {number} says that another one was lost")
            if _DONE in words:
                self._done.add(number)
            if _FAILED in words:
                self._failed.setdefault(number, time.monotonic())
            if not words:
                self._gone(number)

    def _gone(self, number: int) -> None:
        """Its connection is closed."""
        del self._heard[number]
        self._sockets.pop(number).close()
        if number in self._failed or self._all_done.is_set():
            return
        self._end(f"process {number} died")

    def _end(self, told: str) -> NoReturn:
        how = f"process {self._me} ends, to be started again: {told}"
        with suppress(OSError, ValueError):
            print(f"error: {how}", file=sys.stderr, flush=True)
        self._send_all(_LOST)
        self._await_ends(_FAREWELL)
        self._leave()
        os._exit(LOST)

    def _send_all(self, word: bytes) -> None:
        for peer in list(self._sockets.values()):
            # A full buffer is of a process that does not read, and so is silent.
            with suppress(OSError):
                peer.send(word)

    def _await_ends(self, seconds: float) -> None:
        """Process 0: until the others have closed, at most so long."""
        deadline = time.monotonic() + seconds * (self._me == 0)
        waiting = set(self._sockets.values())
        while waiting and (left := deadline - time.monotonic()) > 0:
            for peer in select.select(list(waiting), [], [], left)[0]:
                with suppress(BlockingIOError):
                    if not _received(peer):
                        waiting.discard(peer)

    def _leave(self) -> None:
        """Gives others time to read what was said last, and reads what they said: a
        connection that ends with words unread is reset, and its last words are lost."""
        until = time.monotonic() + _LAST_WORDS
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))
            for peer in self._sockets.values():
                with suppress(BlockingIOError):
                    _received(peer)

    def _close_all(self) -> None:
        for peer in self._sockets.values():
            peer.close()


def _received(peer: socket.socket) -> bytes:
    """What has come; nothing if the connection is closed or lost."""
    try:
        return peer.recv(4096)
    except BlockingIOError:
        raise
    except OSError:
        return b""
