"""How large a buffer is, before it is there, and when it is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError
from jaxrl_par.replay import PriorityConfig, Windows, memory, prioritised, uniform
from jaxrl_par.types import TimeStep, Trajectory

ROWS, LANES, CAPACITY = 4, 2, 6
PIXELS = 84 * 84 * 4


def frames() -> Trajectory:
    """As an agent without memory leaves them, of pictures."""

    def steps(*shape: int) -> jax.Array:
        return jnp.zeros((ROWS + 1, LANES, *shape), jnp.uint8)

    flags, rows = steps().astype(bool), jnp.zeros((ROWS, LANES))
    action = rows.astype(jnp.int32)
    observed = TimeStep(steps(84, 84, 4), flags, flags)
    return Trajectory(observed, action, rows, rows, {}, ())


def test_an_observation_is_kept_once_in_its_own_dtype():
    """T + 1 frames of bytes for T rows, two flags with each, and 3 x 4 bytes a row."""
    shapes = jax.eval_shape(frames)
    buffer = uniform(CAPACITY, 2, Windows(1, constant_carry=True))
    data = jax.eval_shape(buffer.init, shapes)
    assert data.items.steps.obs.dtype == np.uint8
    counters = 3 * 4
    expected = CAPACITY * ((ROWS + 1) * (PIXELS + 2) + ROWS * 12) + counters
    assert memory.num_bytes(data) == expected
    batch, _ = jax.eval_shape(
        lambda data: buffer.sample(data, frames(), jax.random.key(0), Axis()), data
    )
    assert batch.steps.obs.dtype == np.uint8


@pytest.mark.parametrize(("kind", "trees"), [("proportional", 1), ("rank", 2)])
def test_priorities_cost_a_float_for_each_window_and_a_seventh_more(kind, trees):
    shapes = jax.eval_shape(frames)
    windows = Windows(1, constant_carry=True)
    given = (1024, 2, windows, PriorityConfig(kind))
    of_both = (uniform(*given[:3]), prioritised(*given))
    plain, more = (memory.num_bytes(jax.eval_shape(x.init, shapes)) for x in of_both)
    number = 1024 * ROWS
    least = trees * 4 * number
    assert least < more - plain < least + 4 * number / 6


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "replay: 1,000,000 rows, 1.2 GB"),
        ({"parts": "2 devices"}, "replay: 1,000,000 rows, 1.2 GB on each of 2 devices"),
        ({"free": None, "together": 9}, "replay: 1,000,000 rows, 1.2 GB"),
        ({"each": 1_000_000_000, "parts": "2 devices", "together": 2}, "1.0 GB on"),
    ],
)
def test_what_fits_is_told(given, told):
    usual: dict[str, Any] = {"rows": 10**6, "each": 1_200_000_000, "parts": "1 device"}
    usual |= {"together": 1, "free": 2 * 10**9, "added": 64}
    assert told in memory.accepted(**usual | given)


def test_what_does_not_fit_is_refused_with_the_numbers_and_what_would():
    given = {"rows": 10**6, "each": 10**9, "parts": "4 workers", "together": 4}
    with pytest.raises(
        RefusedError,
        match=r"^replay\.capacity: 1,000,000 rows, 1\.0 GB on each of 4 workers, and"
        r" 3\.0 GB are free: at most 749,900 would fit$",
    ):
        memory.accepted(**given, free=2_999_600_000, added=100)
    with pytest.raises(RefusedError, match="not even the smallest fits"):
        memory.accepted(**given, free=100_000, added=100)


def test_the_least_of_machine_and_container_is_what_is_free(tmp_path):
    """A limit of version 2 above the group, and one of version 1 on the group."""

    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def free() -> int:
        return min(memory._host_limits(tmp_path))

    write("proc/meminfo", "MemTotal: 90 kB\nMemAvailable:   50 kB\n")
    assert free() == 50 * 1024
    write("proc/self/cgroup", "0::/jobs/one\n")
    write("sys/fs/cgroup/jobs/one/memory.max", "max\n")
    write("sys/fs/cgroup/jobs/one/memory.current", "7\n")
    write("sys/fs/cgroup/jobs/memory.max", "9000\n")
    write("sys/fs/cgroup/jobs/memory.current", "4000\n")
    write("sys/fs/cgroup/jobs/memory.stat", "anon 3\ninactive_file 500\n")
    assert free() == 5500
    write("proc/self/cgroup", "4:cpu:/x\n3:memory,hugetlb:/a/b\n0::/jobs/one\n")
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "3000\n")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n")
    assert free() == 2000


def test_an_accelerator_reports_its_own():

    class Accelerator:
        def memory_stats(self) -> dict[str, int]:
            return {"bytes_limit": 80, "bytes_in_use": 30}

    device: Any = Accelerator()
    assert memory.free_bytes(device) == 50
    here = memory.free_bytes(jax.local_devices(backend="cpu")[0])
    assert here is None or here > 0


@pytest.mark.parametrize("make", [uniform, prioritised])
def test_an_add_writes_in_place_and_copies_nothing(make):
    """XLA says of the compiled call what it allocates besides its arguments."""
    shapes = jax.eval_shape(frames)
    buffer = make(64 * LANES, 2, Windows(1, constant_carry=True))
    data = jax.eval_shape(buffer.init, shapes)
    add = jax.jit(lambda data, new: buffer.add(data, (), new), donate_argnums=0)
    told: Any = add.lower(data, shapes).compile().memory_analysis()
    assert told.alias_size_in_bytes == memory.num_bytes(data)
    assert told.temp_size_in_bytes < 2 * memory.num_bytes(shapes)
