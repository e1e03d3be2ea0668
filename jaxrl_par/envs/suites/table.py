"""Which suites there are, and why one cannot be used. Nothing here imports JAX, or a
suite, so that a wrong name is refused before a device is touched.

A name is "suite::task"; the extra that installs a suite is called as the suite is.
"""

from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from jaxrl_par.envs.sources import folder
from jaxrl_par.envs.suites import listing
from jaxrl_par.errors import RefusedError, either, nearest

MARK = "::"
"""Between a suite and its task."""


class Suite(NamedTuple):
    """A library of environments. `jaxrl_par.envs.suites.<its name>` adapts it, by a
    function `raw(task, **params)`."""

    needs: tuple[str, ...]
    """What its extra installs, as pyproject.toml has it: itself first."""
    package: str
    """What is imported."""
    names: Callable[[Path], tuple[str, ...]]
    """Of its tasks, from the package's folder."""
    others: str = ""
    """Of which tasks there are no names, and what to do for these: a sentence."""


SUITES = {
    "brax": Suite(("brax>=0.14.2,<0.15",), "brax", listing.brax),
    "craftax": Suite(("craftax>=1.6.1,<1.7",), "craftax", listing.craftax),
    "jumanji": Suite(("jumanji>=1.1.2,<1.2",), "jumanji", listing.registered),
    "navix": Suite(
        ("navix>=0.7.4,<0.8; python_version < '3.12'",), "navix", listing.navix
    ),
    # It imports OpenCV undeclared.
    "octax": Suite(
        ("octax>=0.1.1,<0.2", "opencv-python-headless>=4.8"), "octax", listing.octax
    ),
    "pgx": Suite(("pgx>=2.6,<2.7",), "pgx", listing.pgx),
    "playground": Suite(
        ("playground>=0.2,<0.3",),
        "mujoco_playground",
        listing.playground,
        ". All others fetch models from the network: load one with Playground's"
        " registry, and envs.suites.from_playground takes it",
    ),
    "xland": Suite(("xminigrid>=0.9.3,<0.10",), "xminigrid", listing.registered),
}


def is_of_a_suite(name: str) -> bool:
    """Whether it is written as the name of a suite's task, which there need not be."""
    return MARK in name


def is_name(name: str) -> bool:
    """Whether it is a task of a suite that can be used here."""
    return is_of_a_suite(name) and name in _known(name.partition(MARK)[0])


def names() -> dict[str, tuple[str, ...]]:
    """The tasks, with the suite in front, of each suite that can be used here."""
    return {suite: known for suite in SUITES if (known := _known(suite))}


def refused() -> dict[str, str]:
    """Why a suite that is installed cannot be used here, by suite."""
    installed = {x: problem(x) for x in SUITES if _is_installed(x)}
    return {suite: told for suite, told in installed.items() if told}


def refusal(name: str) -> RefusedError:
    """The error for a name that is none, for the caller to raise."""
    suite, _, task = name.partition(MARK)
    if suite not in SUITES:
        return _unknown_suite(suite)
    if told := problem(suite):
        return RefusedError(f"{name} cannot be made: {told}")
    ours = _known(suite)
    hint = _same_task(task) or nearest(name, ours) or nearest_task(task) or "."
    known = ", ".join(x.partition(MARK)[2] for x in ours)
    told = f"unknown environment {name!r}{hint} {suite} has: {known}"
    return RefusedError(told + SUITES[suite].others)


def nearest_task(task: str) -> str:
    """The end of a sentence that refuses a name: which task of any suite was perhaps
    meant. It is empty where none is near."""
    by_task = {task.lower(): name for task, name in _tasks()}
    close = get_close_matches(task.lower(), by_task, n=1, cutoff=0.75)
    return f"; did you mean {by_task[close[0]]!r}?" if close else ""


def _same_task(task: str) -> str:
    same = [name for known, name in _tasks() if known == task]
    return f"; did you mean {same[0]!r}?" if same else ""


def _tasks() -> list[tuple[str, str]]:
    """(task, its name with the suite) of all suites."""
    return [(x.partition(MARK)[2], x) for known in names().values() for x in known]


def _unknown_suite(name: str) -> RefusedError:
    """Short names are near where few letters are the same; packages count, too."""
    by_name = {x.package.lower(): suite for suite, x in SUITES.items()}
    by_name |= {suite: suite for suite in SUITES}
    close = get_close_matches(name.lower(), by_name, n=1, cutoff=0.5)
    hint = f"; did you mean {by_name[close[0]]!r}?" if close else "."
    known = ", ".join(sorted(SUITES))
    return RefusedError(f"unknown suite {name!r}{hint} Known: {known}")


def problem(suite: str) -> str:
    """Why it cannot be used here; empty where it can."""
    from packaging.requirements import Requirement

    install = f"pip install 'jaxrl-par[{suite}]'"
    every = [Requirement(x) for x in SUITES[suite].needs]
    needs = [x for x in every if x.marker is None or x.marker.evaluate()]
    if not needs:
        return f"{suite} is not for this Python: {either(SUITES[suite].needs)}"
    for need in needs:
        try:
            found = version(need.name)
        except PackageNotFoundError:
            if need is not needs[0]:
                continue  # what it brings may come from elsewhere: importing tells
            return f"{need.name} is not installed: {install}"
        if not need.specifier.contains(found, prereleases=True):
            wanted = f"{need.name}{need.specifier}"
            return f"{need.name} {found} is there, jaxrl-par reads {wanted}: {install}"
    return ""


def imported(suite: str) -> ModuleType:
    """The suite's own package.

    Raises:
      RefusedError: it is not installed, or cannot be imported beside what else is.
    """
    if told := problem(suite):
        raise RefusedError(told)
    try:
        return import_module(SUITES[suite].package)
    except Exception as error:  # of any kind, where it reads what another one lacks
        raise RefusedError(_clash(suite, error)) from error


def _clash(suite: str, error: Exception) -> str:
    """What an import failed with, and which versions met."""
    from packaging.requirements import Requirement

    (need, *_) = map(Requirement, SUITES[suite].needs)
    ours, jax = version(need.name), version("jax")
    asked = [Requirement(x) for x in requires(need.name) or ()]
    bounds = [str(x) for x in asked if x.name == "jax" and x.marker is None]
    if isinstance(error, ModuleNotFoundError):
        told = f"{need.name} {ours} needs {error.name}, which is not installed"
        return f"{told}: pip install 'jaxrl-par[{suite}]'"
    told = f" (it asks for {bounds[0]})" if bounds else ""
    return f"{need.name} {ours}{told} cannot be imported beside jax {jax}: {error}"


def _is_installed(suite: str) -> bool:
    return folder(SUITES[suite].package) is not None


@cache
def _known(suite: str) -> tuple[str, ...]:
    """Names of a suite's tasks; none where it cannot be used."""
    where = folder(SUITES[suite].package) if suite in SUITES else None
    if where is None or problem(suite):
        return ()
    return tuple(f"{suite}{MARK}{x}" for x in SUITES[suite].names(where))
