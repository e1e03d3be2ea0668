"""PPO with actor threads in lockstep: solves LunarLander. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("ppo_threads")
