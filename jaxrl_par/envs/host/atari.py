"""Atari games as the published systems see them, from ale-py's C++ vector environment.

84x84 grey images, each the maximum of two frames, four of them stacked as channels,
one action for four frames, up to 30 no-ops at the start. Rewards are those of the game:
learners clip them. Losing a life does not end an episode, and no button is pressed at
its start.

Source: Mnih et al., Nature 518 (2015), Methods.
"""

from collections.abc import Sequence

from jaxrl_par.envs.host import rows
from jaxrl_par.envs.host.base import HostEnvironment
from jaxrl_par.envs.host.envpool import ImageHost

_FRAMES = 108_000  # half an hour of play
_FRAME_SKIP = 4
MAX_STEPS = _FRAMES // _FRAME_SKIP


def atari(
    name: str,
    num_envs: int,
    seed: int,
    *,
    num_threads: int = 0,
    full_action_space: bool = False,
    sticky_actions: float = 0.0,
    info_metrics: Sequence[str] = (),
) -> HostEnvironment:
    """A game by its Gymnasium name, such as "ALE/Pong-v5".

    Of the registered "-v5" only the game is taken: there, actions are sticky with
    probability 0.25.

    Args:
      num_threads: by default ale-py's choice.
      full_action_space: 18 actions in every game, not only those that do something.
      sticky_actions: probability that the action before is repeated instead (Machado
        et al., JAIR 61 (2018), section 5, recommend 0.25).
      info_metrics: entries of `info` to log besides success; see `envs.host.info`.

    Raises:
      ImportError: ale-py is not installed.
      ValueError: no such game, `num_envs` is below 1, or `seed` is negative.
    """
    rows.check_arguments(num_envs, seed)
    game = game_of(name)
    from ale_py.vector_env import AtariVectorEnv

    vector_env = AtariVectorEnv(
        game,
        num_envs,
        num_threads=num_threads,
        max_num_frames_per_episode=_FRAMES,
        repeat_action_probability=sticky_actions,
        full_action_space=full_action_space,
        frameskip=_FRAME_SKIP,
        noop_max=30,
        stack_num=4,
        reward_clipping=False,
        use_fire_reset=False,
    )
    host = ImageHost(vector_env, "NEXT_STEP", seed, name, MAX_STEPS)
    host.tell(info_metrics, masked=False)
    return host


def names() -> dict[str, str]:
    """Names of ROMs, by names such as "ALE/Pong-v5".

    Raises:
      ImportError: ale-py is not installed.
    """
    ale_py = rows.imported("ale_py", "ale-py", "hosts")
    import gymnasium

    gymnasium.register_envs(ale_py)
    return {
        name: spec.kwargs["game"]
        for name, spec in gymnasium.registry.items()
        if name.startswith("ALE/")
    }


def game_of(name: str) -> str:
    """The name of the ROM. Raises as `atari` does."""
    games = names()
    if name not in games:
        raise rows.unknown_environment(name, games, "gymnasium.pprint_registry()")
    return games[name]
