"""Who knows an environment: experts by the names of what they know."""

from jaxrl_par import random
from jaxrl_par.envs import Environment
from jaxrl_par.envs.catalogue import family_and_sizes
from jaxrl_par.errors import refuse_any
from jaxrl_par.training.recording import record
from jaxrl_par.types import Agent, Trajectory

EXPERT = "expert"
"""What stands for one in place of a folder."""
NUM_ENVS = 8
"""Environments that one acts in at a time."""


def problems(env_name: str) -> list[str]:
    """A line if nobody knows the environment of that name."""
    if _family(env_name) in ("IMaze", "Grasping"):
        return []
    return [
        f"there is no expert of {env_name}, but of I-Mazes of any size, such as"
        " IMaze-21x21, and of Grasping-16x16. Demonstrations of a trained run are"
        " written by `jaxrl-par record-demonstrations RUN_FOLDER --out FOLDER`: give"
        " that FOLDER"
    ]


def of(env_name: str) -> Agent:
    """Somebody who knows the environment.

    Raises:
      RefusedError: there is nobody.
    """
    refuse_any(problems(env_name))
    # As all environments, they start a JAX backend.
    if _family(env_name) == "Grasping":
        from jaxrl_par.envs.grasping_script import grasping_script

        return grasping_script()
    from jaxrl_par.envs.imaze_expert import imaze_expert

    return imaze_expert()


def shown(env_name: str, env: Environment, num_steps: int, seed: int) -> Trajectory:
    """What the expert shows in so many environment steps: the same for a seed."""
    return record(of(env_name), (), env, num_steps, random.key(seed)).trajectory


def _family(env_name: str) -> str | None:
    """Its name without sizes, of an environment of ours."""
    known = family_and_sizes(env_name)
    return None if known is None else known[0]
