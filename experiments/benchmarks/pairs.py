"""Two commands compared in turn, A B A B ..., on a machine whose speed drifts.

Each command prints, as its last line, JSON with `env_steps`, `wall_seconds` and
`cpu_seconds`. A ratio above 1 means that A is faster. It is taken within a pair, whose
halves meet the same machine; the median is over pairs.

    python experiments/benchmarks/pairs.py \\
        --ours "python experiments/benchmarks/throughput.py --json-line" \\
        --theirs "python ../purejaxrl/run_ppo.py cartpole"
"""

import json
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jaxrl_par import cli
from jaxrl_par.errors import above, at_least

NEEDED = ("env_steps", "wall_seconds", "cpu_seconds")
KINDS = ("cpu", "wall")


@dataclass(frozen=True)
class Args:
    """Compares the rates of two commands."""

    ours: str = ""
    """Command A, with its arguments."""
    theirs: str = ""
    """Command B."""
    pairs: int = 5
    timeout: float = 300.0
    """Seconds that one run may take."""
    output: Path = Path("pairs.json")

    def problems(self) -> list[str]:
        """What is missing, or out of range."""
        found = at_least(self, pairs=1) + above(self, timeout=0)
        commands = {"ours": self.ours, "theirs": self.theirs}
        return found + [f"{n} must be a command" for n, x in commands.items() if not x]


def run(command: str, timeout: float) -> dict[str, float]:
    """What the command prints in its last line.

    Raises:
      RuntimeError: it fails, or its last line is not such JSON.
    """
    done = subprocess.run(
        shlex.split(command),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"{command!r} ended with code {done.returncode}:\n{done.stderr[-2000:]}"
        )
    line = (done.stdout.strip().splitlines() or [""])[-1]
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    missing = [x for x in NEEDED if not isinstance(record, dict) or x not in record]
    if record is None or missing:
        raise RuntimeError(
            f"the last line of {command!r} must be JSON with {', '.join(missing)};"
            f" it is {line[:200]!r}"
        )
    return record


def rate(record: dict[str, float], kind: str) -> float:
    """Environment steps per second of this kind."""
    return record["env_steps"] / record[f"{kind}_seconds"]


def ratios(pairs: list[tuple[dict, dict]]) -> dict[str, list[float]]:
    """A's rate over B's, pair by pair."""
    return {
        kind: [rate(ours, kind) / rate(theirs, kind) for ours, theirs in pairs]
        for kind in KINDS
    }


def show(pairs: list[tuple[dict, dict]]) -> None:
    """Prints the table."""
    table = Table("pair", title="environment steps per second, and their ratio")
    for kind in KINDS:
        for name in (f"A / {kind} s", f"B / {kind} s", "ratio"):
            table.add_column(name, justify="right")
    by_kind = ratios(pairs)
    for i, both in enumerate(pairs):
        cells = []
        for kind in KINDS:
            cells += [f"{rate(record, kind):,.0f}" for record in both]
            cells.append(f"{by_kind[kind][i]:.2f}")
        table.add_row(str(i + 1), *cells)
    medians = []
    for kind in KINDS:
        medians += [
            f"{statistics.median(rate(pair[side], kind) for pair in pairs):,.0f}"
            for side in (0, 1)
        ]
        medians.append(f"{statistics.median(by_kind[kind]):.2f}")
    table.add_section()
    table.add_row("median", *medians)
    Console(width=100).print(table)


def main(args: Args) -> None:
    """Runs the pairs, writes after each, and prints."""
    pairs = []
    for i in range(args.pairs):
        pairs.append((run(args.ours, args.timeout), run(args.theirs, args.timeout)))
        by_kind = ratios(pairs)
        report = {
            "ours": args.ours,
            "theirs": args.theirs,
            "median_ratio": {k: statistics.median(v) for k, v in by_kind.items()},
            "ratios": by_kind,
            "runs": [{"ours": ours, "theirs": theirs} for ours, theirs in pairs],
        }
        args.output.write_text(json.dumps(report, indent=1))
        latest = ", ".join(f"{k} {v[-1]:.2f}" for k, v in by_kind.items())
        print(f"pair {i + 1} of {args.pairs}: {latest}", file=sys.stderr)
    show(pairs)
    print(f"written to {args.output}")


if __name__ == "__main__":
    main(cli.parse(Args))
