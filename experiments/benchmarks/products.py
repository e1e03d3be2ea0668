"""What the matrix products of a program cost alone, for benchmarks of the programs.

The products are every `dot_general`, found by walking the jaxpr, without what is dead,
and as often as scans repeat it. Each costs its flops divided by the rate that this
machine reaches for exactly its shapes, dtypes and contracted dimensions, alone in a
scan. Both operands change in each iteration: a transpose of one that stays the same
would be hoisted out of the loop, and the rate look too good. Of a branch, the cheapest
way counts; of a `while`, one turn.

The jaxpr's layouts need not be those that XLA chooses, and they differ by a factor of
three and more. So `Dot.layouts` has the others, for a stricter bound in which each
product has the best of its layouts: as written, or as [m, k] times [k, n] in either
order.

All functions are compiled first, then called in turn, again and again, so that a change
of the machine's speed meets all of them. Reported are medians. A CPU-second is a second
of one core, in user or system mode, of all threads of this process.
"""

import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.interpreters.partial_eval import dce_jaxpr


class Used(NamedTuple):
    """Seconds that passed, and that all threads worked, for so many steps."""

    wall: float
    cpu: float
    steps: float


class Subject(NamedTuple):
    """Something to time, compiled."""

    call: Callable[[], Any]
    """Returns how many steps were done, of an environment or of learning."""
    amount: int
    """Rows, updates or products of one call."""
    compile_seconds: float
    megabytes: float
    products: "dict[Dot, int] | None" = None
    """In one step of a program, and how often."""


class Dot(NamedTuple):
    """A matrix product, by all that decides its speed."""

    lhs: jax.ShapeDtypeStruct
    rhs: jax.ShapeDtypeStruct
    dimensions: Any

    @property
    def flops(self) -> int:
        (contracting, _), (batch, _) = self.dimensions
        common = prod(self.lhs.shape[i] for i in (*contracting, *batch))
        return 2 * self.lhs.size * self.rhs.size // common

    def layouts(self) -> set["Dot"]:
        """As written, and as [m, k] times [k, n] in both orders of its operands."""
        (lhs_axes, rhs_axes), (batch, _) = self.dimensions
        if batch or len(lhs_axes) != 1 or self.lhs.ndim != 2 or self.rhs.ndim != 2:
            return {self}
        m, n = self.lhs.shape[1 - lhs_axes[0]], self.rhs.shape[1 - rhs_axes[0]]
        k, plain = self.lhs.shape[lhs_axes[0]], (((1,), (0,)), ((), ()))

        def product(rows: int, columns: int) -> Dot:
            lhs = jax.ShapeDtypeStruct((rows, k), self.lhs.dtype)
            return Dot(lhs, jax.ShapeDtypeStruct((k, columns), self.rhs.dtype), plain)

        return {self, product(m, n), product(n, m)}


def dots(jaxpr: Any, times: int = 1) -> Iterator[tuple[Dot, int]]:
    """Every product of the jaxpr, and how often it is computed."""
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            lhs, rhs = (
                jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype)
                for v in equation.invars
            )
            yield Dot(lhs, rhs, params["dimension_numbers"]), times
        turns = times * params["length"] if name == "scan" else times
        leaves = (
            getattr(x, "jaxpr", x) for x in jax.tree.leaves(list(params.values()))
        )
        inner = [list(dots(leaf, turns)) for leaf in leaves if hasattr(leaf, "eqns")]
        if name == "cond":
            inner = [min(inner, key=lambda found: sum(d.flops * n for d, n in found))]
        for found in inner:
            yield from found


def products_of(function: Callable, *args: Any) -> Counter[Dot]:
    """The products of a function, without those that nothing uses."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    jaxpr, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    found = Counter()
    for dot, times in dots(jaxpr):
        found[dot] += times
    return found


def used(call: Callable[[], Any]) -> Used:
    """What one call takes."""
    settle()
    wall, before = time.perf_counter(), cpu_seconds()
    steps = int(call())
    return Used(time.perf_counter() - wall, cpu_seconds() - before, steps)


def settle() -> None:
    """Waits while this process works: what a call needed is freed after it returned,
    tens of milliseconds long if it was much, and must not count for the next."""
    before = -1.0
    while cpu_seconds() - before > 1e-3:
        before = cpu_seconds()
        time.sleep(5e-3)


def cpu_seconds() -> float:
    """What this process has used so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def subject(step: Callable[[Any], tuple[Any, Any]], state: Any, amount: int) -> Subject:
    """Compiles `step`, whose calls go on from state to state."""
    started = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state).compile()
    seconds = time.perf_counter() - started
    memory: Any = compiled.memory_analysis()
    size = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    latest = [jax.tree.map(jnp.copy, state)]

    def call():
        latest[0], result = jax.block_until_ready(compiled(latest[0]))
        return result

    return Subject(call, amount, seconds, size / 1e6)


def product_subject(dot: Dot) -> Subject:
    """One product again and again, with operands that change."""
    iterations = min(max(int(3e8 / dot.flops), 5), 20_000)

    def turn(operands, _):
        lhs, rhs = operands
        out = jax.lax.dot_general(lhs, rhs, dot.dimensions)
        # All of the product is computed, although one number of it is used.
        number = jax.lax.optimization_barrier(out).ravel()[0]
        lhs, rhs = (x.at[(0,) * x.ndim].set(number.astype(x.dtype)) for x in (lhs, rhs))
        return (lhs, rhs), None

    def step(operands):
        return jax.lax.scan(turn, operands, length=iterations)[0], 0

    keys = jax.random.split(jax.random.key(0))
    operands = tuple(
        0.01 * jax.random.normal(key, x.shape, x.dtype)
        for key, x in zip(keys, (dot.lhs, dot.rhs), strict=True)
    )
    return subject(step, operands, iterations)


def product_subjects(found: Iterable[Iterable[Dot]]) -> dict[Any, Subject]:
    """All products, each in all of its layouts."""
    written = {dot for products in found for dot in products}
    layouts = {layout for dot in written for layout in dot.layouts()}
    return {dot: product_subject(dot) for dot in layouts}


def medians_of(subjects: Mapping[Any, Subject], repetitions: int) -> dict[Any, Used]:
    """What calls of each take, called in turn; the first turn, which warms up, and is
    not one of the repetitions, does not count."""
    times: dict[Any, list[Used]] = {name: [] for name in subjects}
    for _ in range(1 + repetitions):
        for name, one in subjects.items():
            times[name].append(used(one.call))
    return {
        name: Used(
            wall=statistics.median(x.wall for x in taken[1:]),
            cpu=statistics.median(x.cpu for x in taken[1:]),
            steps=statistics.median(x.steps for x in taken[1:]),
        )
        for name, taken in times.items()
    }


def listed(
    products: Mapping[Dot, int],
    seconds: Callable[[Dot], float],
    unit: str,
    units: float,
) -> list[dict[str, Any]]:
    """Records of the products, the one that takes most first.

    Args:
      seconds: what each takes, once.
      unit: name of what they take together, `units` for each second.
    """
    found = [
        {
            "shapes": [dot.lhs.shape, dot.rhs.shape],
            "contracting": dot.dimensions[0],
            "times": times,
            "gigaflops": dot.flops / seconds(dot) / 1e9,
            unit: units * times * seconds(dot),
        }
        for dot, times in products.items()
    ]
    return sorted(found, key=lambda one: -one[unit])


def peak_megabytes() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
