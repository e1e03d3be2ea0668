"""What it costs that members of a population copy each other.

    python experiments/benchmarks/selection.py

The same members, trained as a population and by population-based training, in turn. A
ratio is that of CPU-seconds for as many steps, and 1 means that copying costs nothing.
"""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
from products import Subject, subject, used

from jaxrl_par import cli, random
from jaxrl_par.errors import at_least
from jaxrl_par.loops.selection import SelectionConfig
from jaxrl_par.presets import pbt, sweep
from jaxrl_par.topologies.compiled import scanned


@dataclass(frozen=True)
class Args:
    """Measures population-based training beside a population."""

    env_name: str = "Breakout-MinAtar"
    num_members: int = 16
    interval: int = 25
    """Steps of training between two times that members copy each other."""
    num_updates: int = 50
    """Steps of training of one timed call."""
    rounds: int = 7
    output: Path = Path("selection.json")

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, num_members=1, interval=1, num_updates=1, rounds=1)


def timed(args: Args, interval: int) -> Subject:
    """Calls that train all members."""
    settings = replace(
        pbt.Args(), env_name=args.env_name, num_random=args.num_members,
        evolution=SelectionConfig(interval=interval),
    )  # fmt: skip
    program = sweep.members(settings).program
    train = scanned(program, args.num_updates)
    run = jax.jit(program.init)(random.key(0))
    number = args.num_updates * args.num_members
    return subject(lambda run: (train(run)[0], jnp.int32(number)), run, number)


def main(args: Args) -> None:
    """Measures, prints and writes."""
    alone, copying = timed(args, 0), timed(args, args.interval)
    rounds: list[dict[str, Any]] = []
    for one in (alone, copying):
        used(one.call)
    for _ in range(args.rounds):
        both = used(alone.call), used(copying.call)
        rounds.append({"population": both[0].cpu, "evolving": both[1].cpu})
    ratios = [x["evolving"] / x["population"] for x in rounds]
    report = {
        "args": asdict(args), "machine": cli.machine(), "rounds": rounds,
        "ratios": ratios, "median": median(ratios),
    }  # fmt: skip
    args.output.write_text(json.dumps(report, indent=1, default=str))
    told = ", ".join(f"{x:.3f}" for x in ratios)
    print(f"{median(ratios):.3f} times the CPU-seconds of a population; {told}")


if __name__ == "__main__":
    os.environ.setdefault("NPROC", "1")
    cli.configure_jax()
    main(cli.parse(Args))
