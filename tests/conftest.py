"""Eight CPU devices, and a check of every annotated shape and dtype of jaxrl_par."""

import os
from importlib.metadata import version

# The second flag avoids a deadlock of jaxlib on CPU: two batched programs, as of
# vmapped initialisers, each waiting for threads that the other one holds. The others
# make compiling three times faster: tests compile more than they compute. XLA's older
# emitters would contract a * b + c differently in each program; without the instruction
# for it, programs that do the same agree in all bits, as they do with a user's flags:
# with those, `.ci/run` repeats `envs/host/test_pure.py`, which noticed.
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

import jax
from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import install_import_hook

# Where the package says float, a traced scalar will do.
check = beartype(
    conf=BeartypeConf(hint_overrides=FrozenDict({float: float | jax.Array}))
)
install_import_hook("jaxrl_par", "conftest.check")
