"""Texts that take long to make, kept from one process to the next.

`--help` of an experiment needs its settings, whose modules import JAX: a second and
more. What it printed is printed again as long as nothing that made it has changed. A
module of its own that imports next to nothing.
"""

import contextlib
import hashlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxrl_par import __version__
from jaxrl_par.pipes import while_it_is_read

_PACKAGE = Path(__file__).parent


def cache_folder() -> Path | None:
    """Where this user's programs keep what they can make again; None if nowhere.

    `jaxrl_par` in XDG_CACHE_HOME, which must be absolute, or in `~/.cache`.
    """
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(chosen):
        return Path(chosen) / "jaxrl_par"
    try:
        return Path.home() / ".cache" / "jaxrl_par"
    except RuntimeError:  # as for users of a container that no one has named
        return None


def run_or_help(run: Callable[[], object], words: Sequence[str], *about: str) -> None:
    """Runs a command, or prints its help, without the command where that is known.

    It is known if it was kept for the same package, Python and width of the terminal.
    Where nothing can be kept, it is made each time.

    Args:
      run: with `words`. If those ask for help and for nothing else, it prints that to
        `sys.stdout`, and ends with code 0.
      about: what else the help depends on.

    Raises:
      SystemExit: code 0 after help, 1 if it cannot be written, or as `run`.
    """
    if list(words) not in (["-h"], ["--help"]):
        run()
        return
    path = _path(str(shutil.get_terminal_size((0, 0)).columns), *about)
    state = _state()
    text = _read(path, state)
    if text is None:
        text = _printed(run)
        _write(path, state, text)
    with while_it_is_read():
        print(text, end="")
    raise SystemExit(0)


def _path(*about: str) -> Path | None:
    """One file for each text: a later package replaces what an earlier one left."""
    folder = cache_folder()
    name = _digest("\0".join(about).encode())
    return folder and folder / "help" / f"{name}.txt"


def _state() -> bytes:
    """What the text depends on besides: Python, and every source of the package."""
    sources = sorted(_PACKAGE.rglob("*.py"))
    told = [f"{x.relative_to(_PACKAGE)}\0{_digest(x.read_bytes())}" for x in sources]
    return "\0".join([sys.version, __version__, *told]).encode()


def _printed(run: Callable[[], object]) -> str:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            run()
    except SystemExit as error:
        if error.code:
            raise
    return printed.getvalue()


def _read(path: Path | None, state: bytes) -> str | None:
    """The text, if it is whole and of that state."""
    if path is None:
        return None
    try:
        seal, _, text = path.read_bytes().partition(b"\n")
        return text.decode() if seal == _seal(state, text) else None
    except (OSError, UnicodeDecodeError):
        return None


def _write(path: Path | None, state: bytes, text: str) -> None:
    """Several processes may write at once, and each replaces a whole file."""
    if path is None:
        return
    data = text.encode()
    with contextlib.suppress(OSError):  # a full disk, or a home that is read-only
        path.parent.mkdir(parents=True, exist_ok=True)
        number, temporary = tempfile.mkstemp(dir=path.parent, suffix=".new")
        try:
            with open(number, "wb") as file:
                file.write(_seal(state, data) + b"\n" + data)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)


def _seal(state: bytes, text: bytes) -> bytes:
    return _digest(state + b"\0" + text).encode()


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
