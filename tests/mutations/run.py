"""Plants one bug after the other, and tells which quick test finds it.

    python tests/mutations/run.py                     # all of `mutants.py`; an hour
    python tests/mutations/run.py --only gae queue    # whose name has one of these
    python tests/mutations/run.py --whole             # survivors: the whole quick suite

Bugs are planted in a copy, in a temporary folder: the working tree stays as it is. The
tests that a mutation names run first, all without a bug, where they must pass; then
those of each mutation with it, up to the first that fails. Only quick tests count.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path

from mutants import MUTATIONS, ROOT, Mutation, mutated, problems

WANTED = 0.95
"""Share of mutations that have to be found."""
HANG = 120
"""Seconds after which a test hangs, and so has failed."""


def main(argv: Sequence[str] | None = None) -> int:
    """0 if enough are found."""
    options = _parsed(argv)
    if found := problems(MUTATIONS):
        print("the list does not fit the package:", *found, sep="\n  ")
        return 2
    chosen = [x for x in MUTATIONS if any(part in x.name for part in options.only)]
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy = Path(folder) / "copy"
        ignored = shutil.ignore_patterns(
            *(".git", ".venv", "__pycache__", "*_cache", ".hypothesis", "runs")
        )
        shutil.copytree(ROOT, copy, ignore=ignored)
        if not options.trust and not _pass_without(copy, chosen, options.limit):
            return 2
        survivors = []
        for number, mutation in enumerate(chosen, start=1):
            print(f"{number:3}/{len(chosen)}  {mutation.part:13}  ", end="", flush=True)
            started = time.monotonic()
            told = _tried(copy, mutation, options.limit, options.whole)
            survivors += [] if told else [mutation]
            seconds = time.monotonic() - started
            print(f"{mutation.name}: {told or 'SURVIVED'}  ({seconds:.0f} s)")
    return _summary(chosen, survivors)


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", default=[""], help="parts of names, any of which will do"
    )
    parser.add_argument(
        "--whole",
        action="store_true",
        help="run the whole quick suite where the named tests find nothing",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="do not run the tests without a bug first",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=300.0,
        help="seconds for the named tests of one mutation (default: 300)",
    )
    return parser.parse_args(argv)


def _pass_without(copy: Path, mutations: Iterable[Mutation], limit: float) -> bool:
    """Whether the named tests pass without any bug, so that what fails has found one.

    File by file, so that a mutation's limit of time is one for each.
    """
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    # A whole file has its tests in it.
    tests = [x for x in tests if x.partition("::")[0] not in tests or "::" not in x]
    by_file: dict[str, list[str]] = {}
    for test in tests:
        by_file.setdefault(test.partition("::")[0], []).append(test)
    passed = True
    for file, named in by_file.items():
        code, output = _pytest(copy, named, 3 * limit)
        if code:
            passed = False
            print(f"without a bug, {file} does not pass:\n{output[-3000:]}")
    return passed


def _tried(copy: Path, mutation: Mutation, limit: float, whole: bool) -> str | None:
    """Which test finds the mutation, None if none does."""
    original = ROOT / "jaxrl_par" / mutation.file
    target = copy / "jaxrl_par" / mutation.file
    target.write_text(mutated(mutation, original.read_text()))
    try:
        told = _found(*_pytest(copy, mutation.tests, limit))
        if told is None and whole:
            told = _found(*_pytest(copy, (), 10 * limit))
    finally:
        # With its time of change, so that compiled modules are up to date again.
        shutil.copy2(original, target)
    return told


def _found(code: int | None, output: str) -> str | None:
    if code not in (1, 2):  # failures; errors while tests are collected
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (.*)", output, re.MULTILINE)
    return f"found by {failed[1]}" if failed else "found, by no test that has a name"


def _pytest(copy: Path, tests: Iterable[str], limit: float) -> tuple[int | None, str]:
    """The exit code of the tests, those of the whole suite if none are named, and what
    they print; None where they take longer than `limit` seconds."""
    environment = os.environ | {"PYTHONPATH": str(copy), "COLUMNS": "160"}
    # Modules that were compiled once start in half the time.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "pytest", "-n0", "-x", "-q"]
    command += [f"--timeout={HANG}", "-p", "no:cacheprovider", "--tb=line"]
    command += [f"tests/{test}" for test in tests]
    with tempfile.TemporaryFile("w+") as output:
        try:
            code = subprocess.run(
                command, cwd=copy, env=environment, timeout=limit,
                stdout=output, stderr=subprocess.STDOUT,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = None
        output.seek(0)
        return code, output.read()


def _summary(chosen: Sequence[Mutation], survivors: Sequence[Mutation]) -> int:
    wanted = ceil(WANTED * len(chosen))
    found = len(chosen) - len(survivors)
    of_parts = Counter(x.part for x in chosen)
    left = Counter(x.part for x in survivors)
    print()
    for part, count in of_parts.items():
        print(f"  {part:13}  {count - left[part]:3} of {count:3}")
    for mutation in survivors:
        print(f"  survived: {mutation.name} ({mutation.file})")
    print(f"the quick suite finds {found} of {len(chosen)}, wanted {wanted}")
    return int(found < wanted)


if __name__ == "__main__":
    sys.exit(main())
