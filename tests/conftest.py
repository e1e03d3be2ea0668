"""Eight CPU devices, and a check of every annotated shape and dtype of jaxrl_par."""

import os
from importlib.metadata import version

# The second flag avoids a deadlock of jaxlib on CPU: two batched programs, as of
# vmapped initialisers, each waiting for threads that the other one holds. The others
# make compiling three times faster: tests compile more than they compute.
flags = [
    "--xla_force_host_platform_device_count=8",
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if version("jaxlib").startswith("0.10."):
    flags.append("--xla_cpu_use_fusion_emitters=false")  # the last that know it
os.environ.setdefault("XLA_FLAGS", " ".join(flags))
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
