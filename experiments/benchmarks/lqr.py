"""How much faster LQR is, vmapped over initial states, than a loop over them.

    uv run experiments/benchmarks/lqr.py

The same backward passes four ways: in NumPy, one initial state after the other, as
the public code of guided policy search does; in a Python loop over a compiled pass; and
in one compiled call, vmapped, which moves the axis of initial states behind all others
and back, and with that axis there from the beginning. All take turns, the last two of
several calls: a step within a trust region makes thirty passes in a row. A ratio is
that of a turn, medians are over turns, in CPU-seconds of this process. XLA has one
thread: with more, small products wait for each other.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["NPROC"] = "1"  # before JAX starts

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par import cli
from jaxrl_par.algorithms.gps.lqr import Dynamics, Quadratic, backward
from jaxrl_par.errors import at_least


@dataclass(frozen=True)
class Args:
    """Sizes, and where to write."""

    num_states: int = 64
    """Initial states."""
    num_steps: int = 100
    state_size: int = 4
    num_actions: int = 2
    rounds: int = 15
    calls: int = 10
    """Of a batched way in a turn."""
    output: Path = Path("lqr.json")

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(
            self,
            num_states=1,
            num_steps=1,
            state_size=1,
            num_actions=1,
            rounds=1,
            calls=1,
        )


def problems(args: Args) -> tuple[Quadratic, Dynamics]:
    """Linear systems with costs that curve upwards, [num_states, num_steps, ...]."""
    draws, both = np.random.default_rng(0), args.state_size + args.num_actions
    shape, size = (args.num_states, args.num_steps), args.state_size
    root = draws.normal(size=(*shape, both, both))

    def made(x: np.ndarray) -> jax.Array:
        return jnp.asarray(x, jnp.float32)

    curved = root @ root.swapaxes(-1, -2) / both + np.eye(both)
    cost = Quadratic(made(curved), made(draws.normal(size=(*shape, both))))
    matrix, offset = (draws.normal(size=(*shape, *x)) for x in ((size, both), (size,)))
    noise = jnp.zeros((*shape, size, size))
    return cost, Dynamics(made(0.4 * matrix), made(offset), noise)


def in_numpy(cost: Any, dynamics: Any) -> list[np.ndarray]:
    """Gains of one initial state, the last step first."""
    size = dynamics.offset.shape[1]
    value, slope = np.zeros((size, size)), np.zeros(size)
    gains = []
    for t in reversed(range(len(cost.gradient))):
        matrix = dynamics.matrix[t]
        hessian = cost.hessian[t] + matrix.T @ value @ matrix
        gradient = cost.gradient[t] + matrix.T @ (slope + value @ dynamics.offset[t])
        both, own = hessian[size:, :size], hessian[size:, size:]
        factor = np.linalg.cholesky(own)
        right = np.concatenate([both, gradient[size:, None]], axis=1)
        solved = -np.linalg.solve(factor.T, np.linalg.solve(factor, right))
        gain, shift = solved[:, :size], solved[:, size]
        value = hessian[:size, :size] + both.T @ gain
        value = 0.5 * (value + value.T)
        slope = gradient[:size] + both.T @ shift
        gains.append(gain)
    return gains


def main(args: Args) -> None:
    """Measures, and says and writes the ratios."""
    given = problems(args)
    apart = [jax.tree.map(lambda x, i=i: x[i], given) for i in range(args.num_states)]
    host = [jax.tree.map(np.asarray, one) for one in apart]
    behind = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), given)
    one, many = jax.jit(backward), jax.jit(jax.vmap(backward))
    ways: dict[str, Callable[[], Any]] = {
        "numpy": lambda: [in_numpy(*x) for x in host],
        "compiled_loop": lambda: [jax.block_until_ready(one(*x)) for x in apart],
        "vmapped": lambda: jax.block_until_ready(many(*given)),
        "behind": lambda: jax.block_until_ready(one(*behind)),
    }
    expected = np.stack([x[::-1] for x in ways["numpy"]()])
    found = np.asarray(ways["vmapped"]().controllers.gain)
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    assert error < 1e-3, error
    for way in ("compiled_loop", "behind"):
        ways[way]()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            calls = args.calls if name in ("vmapped", "behind") else 1
            began = time.process_time()
            for _ in range(calls):
                way()
            seconds[name].append((time.process_time() - began) / calls)
    told: dict[str, Any] = {
        "settings": asdict(args) | {"output": str(args.output)},
        "machine": cli.machine(),
        "milliseconds": {n: 1e3 * statistics.median(x) for n, x in seconds.items()},
        "times_as_fast": {
            f"{batched} than {name}": statistics.median(
                x / y for x, y in zip(seconds[name], seconds[batched], strict=True)
            )
            for batched in ("vmapped", "behind")
            for name in ("numpy", "compiled_loop")
        },
        "largest_difference": error,
    }
    args.output.write_text(json.dumps(told, indent=1))
    print(told["milliseconds"], told["times_as_fast"])


if __name__ == "__main__":
    main(cli.parse(Args))
