"""One run in several processes, on one host or many: `jax.distributed`, made safe."""
