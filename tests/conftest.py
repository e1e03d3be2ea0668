"""Eight CPU devices, a check of every annotated shape and dtype of jaxrl_par, and which
tests are slow."""

import gc
import os
import threading
from importlib.metadata import version
from pathlib import Path

# The second flag avoids a deadlock of jaxlib on CPU: two batched programs, as of
# vmapped initialisers, each waiting for threads that the other one holds. The others
# make compiling three times faster: tests compile more than they compute. XLA's older
# emitters would contract a * b + c differently in each program; without the instruction
# for it, programs that do the same agree in all bits, as they do with a user's flags:
# with those, `.ci/run` repeats `envs/host/test_pure.py`, which noticed, and more.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8"
    " --xla_cpu_enable_concurrency_optimized_scheduler=false"
    " --xla_backend_optimization_level=0"
    " --xla_cpu_parallel_codegen_split_count=1"
    # Later ones do not know the emitters any more.
    + " --xla_cpu_use_fusion_emitters=false --xla_cpu_max_isa=AVX"
    * version("jaxlib").startswith("0.10."),
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import jax
import pytest
from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import install_import_hook

# Where the package says float, a traced scalar will do.
check = beartype(
    conf=BeartypeConf(hint_overrides=FrozenDict({float: float | jax.Array}))
)
install_import_hook("jaxrl_par", "conftest.check")

# A crowded machine is no failure.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("here")

MOST_MEMORY = 1.2e9
"""Bytes of a process above which it forgets what it compiled."""


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem():
    """`sample(n)`: of all parameters of a test, n, evenly spread, are quick; the others
    are marked slow. Here, because later only those that were asked for are known."""
    made = yield
    cases = made if isinstance(made, list) else []
    sampled = [x for x in cases if x.get_closest_marker("sample")]
    if sampled:
        count = sampled[0].get_closest_marker("sample").args[0]
        quick = {i * len(sampled) // count for i in range(count)}
        for i, case in enumerate(sampled):
            if i not in quick:
                case.add_marker("slow")
    return made


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """Programs that were compiled stay in memory, those of one module for all later."""
    yield
    statistics = Path("/proc/self/statm")  # not on every system
    if statistics.exists():
        pages = int(statistics.read_text().split()[1])
        if pages * os.sysconf("SC_PAGESIZE") > MOST_MEMORY:
            jax.clear_caches()
            gc.collect()


@pytest.fixture
def world():
    """A scripted one. Its hanging calls end with the test, as do then their threads."""
    from scripted import World  # after the import hook

    before = set(threading.enumerate())
    world = World()
    yield world
    world.released.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def disk(tmp_path):
    """A file system that can be made full, or for reading alone."""
    from small_disk import Disk

    disk = Disk(tmp_path / "disk")
    yield disk
    disk.unmount()


@pytest.fixture
def declared(monkeypatch):
    """Every metric that a run logs in the test is declared by a module."""
    from jaxrl_par.training import metrics, rows  # after the import hook

    names, write = set(), rows.JsonLines.write

    def noted(self, row):
        names.update(row)
        write(self, row)

    monkeypatch.setattr(rows.JsonLines, "write", noted)
    yield
    assert metrics.undeclared(names) == set()
