"""Evolution strategies whose members are played by workers, each in its own thread.

`loops.evolution` as a program plays all members side by side, which only pure
environments can do. Here a generation is divided into parts, each of so many pairs;
workers take one after the other, and the parameters take a step when all were played.
Simulators do as well, and long episodes keep nobody waiting but the generation's end.

What a part gives depends on the parameters and its number alone. So nothing depends on
who was faster, or on whether a worker was lost and its part played again. Of pure
environments k parts are what k devices of `sharded` play, and one part is `compiled`,
both bit for bit; the step of the parameters is that of one device, so that several
parts agree with `sharded` to rounding.

With a quorum a generation closes when so many parts are there. Then it does depend on
it, which is recorded, and `repeat_recorded` repeats it in one thread. Parts enter whole
or not at all: half a pair would count as if the other half had failed.

Source: Salimans et al., arXiv:1703.03864, algorithm 2.
"""

from pathlib import Path
from typing import Any

from jaxrl_par.bridge.generations.config import GenerationsConfig
from jaxrl_par.bridge.generations.config import PartsConfig as PartsConfig
from jaxrl_par.bridge.generations.engine import GenerationsEngine
from jaxrl_par.bridge.generations.replay import GenerationsReplay
from jaxrl_par.bridge.generations.system import asked
from jaxrl_par.bridge.unrolled import MakeEnv
from jaxrl_par.envs import Environment
from jaxrl_par.loops import records
from jaxrl_par.perturbations import NoiseConfig
from jaxrl_par.types import Agent


def generations(
    agent: Agent,
    env: Environment | MakeEnv,
    noise: NoiseConfig,
    num_members: int,
    max_steps: int,
    config: GenerationsConfig = GenerationsConfig(),
    *,
    cap_factor: float | None = None,
    device: Any = None,
) -> GenerationsEngine:
    """An engine for `training.train`, which starts its threads when it first advances.

    Args:
      agent, noise, max_steps, cap_factor: those of `loops.evolution`.
      env: in which one member plays, an episode in each: pure environments, or what
        makes simulators from a key.
      num_members: of a whole generation, pairs for each of its parts.
      device: a `jax.Device`, by default the first.

    Raises:
      RefusedError: something is out of range, or the agent was made for other specs.
    """
    given = noise, num_members, max_steps, cap_factor, config, device
    return GenerationsEngine(asked(agent, env, *given))


def repeat_recorded(
    agent: Agent,
    env: Environment | MakeEnv,
    noise: NoiseConfig,
    num_members: int,
    max_steps: int,
    config: GenerationsConfig,
    recorded: Path,
    *,
    cap_factor: float | None = None,
    device: Any = None,
) -> GenerationsReplay:
    """An engine that repeats a run which `generations` recorded, in one thread.

    Arguments are those of the recorded run. On CPU it ends in the same bits.

    Raises:
      RefusedError: as `generations`.
      RecordError: there is no record at `recorded`, or it is damaged.
    """
    given = noise, num_members, max_steps, cap_factor, config, device
    return GenerationsReplay(asked(agent, env, *given), records.read(recorded))
