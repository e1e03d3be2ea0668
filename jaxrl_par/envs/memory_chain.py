"""Gymnax's memory chain, in any length: a bit that is shown first is asked for last.

Source: Osband et al., bsuite, arXiv:1908.03568. As `import gymnax` does, importing this
module starts a JAX backend.
"""

from gymnax.environments.bsuite import memory_chain


class MemoryChain(memory_chain.MemoryChain):
    """A chain of `length` steps, after which the action must be the bit.

    The reward is 1 if it is, and -1 if not: 0 in the mean without memory. An episode
    has `length` + 1 steps.
    """

    def __init__(self, length: int):
        super().__init__()
        self.length = length

    @property
    def default_params(self) -> memory_chain.EnvParams:
        end = self.length + 1
        return memory_chain.EnvParams(end, memory_length=self.length)
