"""R2D2, DQN with memory from replayed sequences: MemoryChain-30. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("r2d2")
