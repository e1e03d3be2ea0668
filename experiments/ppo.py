"""PPO on devices, or with actors in threads: CartPole by default. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("ppo")
