"""TD3: twin critics and a delayed policy, from replay. Try `--help`."""

from jaxrl_par import presets

if __name__ == "__main__":
    presets.launch("td3")
