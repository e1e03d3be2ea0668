"""Simulators by name."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, get_args

from jaxrl_par.envs.host import envpool as envpools
from jaxrl_par.envs.host import rows
from jaxrl_par.envs.host.atari import MAX_STEPS, atari, game_of
from jaxrl_par.envs.host.atari import names as atari_names
from jaxrl_par.envs.host.base import HostEnvironment
from jaxrl_par.envs.host.envpool import check_name, from_envpool
from jaxrl_par.envs.host.gymnasium import from_vector
from jaxrl_par.envs.host.processes import in_processes
from jaxrl_par.envs.host.single import from_callable
from jaxrl_par.errors import unknown_name

Backend = Literal["auto", "gymnasium", "processes", "envpool"]


def backends() -> tuple[str, ...]:
    """What can run a simulator."""
    return get_args(Backend)


def make(
    name: str,
    num_envs: int,
    seed: int,
    *,
    backend: str = "auto",
    info_metrics: Sequence[str] = (),
    masked: bool = False,
    render: bool = False,
) -> HostEnvironment:
    """Simulators by the name that Gymnasium or EnvPool gives them.

    Args:
      backend: "gymnasium" steps one after the other in the caller's thread, and can be
        brought back from a snapshot. "processes" steps each in a process of its own,
        for simulators that take a millisecond or more. "envpool" has threads in C++.
        "auto" is "gymnasium". Atari games, "ALE/...", have threads in C++ as well and
        run by "auto" and "gymnasium" as `atari` describes.
      info_metrics: entries of `info` to log besides success; see `envs.host.info`.
      masked: `info` tells in every reset and step which actions there are, and
        observations are `Masked`; see `envs.host.masking`. Not of Atari games.
      render: they are to draw themselves, where "gymnasium" steps them and they can.

    Raises:
      ValueError: no such environment or backend, `num_envs` is below 1, or `seed` is
        negative.
      ImportError: what runs it is not installed.
    """
    if backend not in backends():
        raise unknown_name("backend", backend, backends())
    rows.check_arguments(num_envs, seed)
    if backend == "envpool":
        told = {"info_metrics": info_metrics, "masked": masked}
        return from_envpool(name, num_envs, seed, **told)
    if name.startswith("ALE/"):
        if masked:
            raise ValueError(f"{name} tells no masks of actions: all are allowed")
        if backend == "processes":
            raise ValueError(
                f"{name} has threads of its own: use backend 'gymnasium' or 'auto'"
            )
        return atari(name, num_envs, seed, info_metrics=info_metrics)
    spec = _spec(name)
    import gymnasium

    # The spec and not its name, which workers would not know if the script that was
    # started has registered it.
    make_env = partial(gymnasium.make, spec, disable_env_checker=True)
    if render and backend != "processes" and _can_draw(spec):
        _without_a_screen()
        make_env = partial(make_env, render_mode="rgb_array")
    told: Any = {"name": name, "info_metrics": info_metrics, "masked": masked}
    try:
        if backend != "processes":
            return from_callable(make_env, num_envs, seed, **told)
        vector_env = in_processes(make_env, num_envs, name)
        limit = spec.max_episode_steps
        return from_vector(vector_env, seed, max_episode_steps=limit, **told)
    except gymnasium.error.DependencyNotInstalled as error:
        raise _not_installed(name) from error


def _spec(name: str) -> Any:
    """Gymnasium's record of an environment."""
    try:
        import gymnasium
    except ImportError as error:
        raise _not_installed(name) from error
    if name not in gymnasium.registry:
        known = set(gymnasium.registry)
        with suppress(ImportError):
            known |= set(atari_names())
        raise rows.unknown_environment(name, known, "gymnasium.pprint_registry()")
    return gymnasium.spec(name)


def _can_draw(spec: Any) -> bool:
    """Whether it has a render() of mode "rgb_array"."""
    from gymnasium.envs.registration import load_env_creator

    creator = spec.entry_point
    creator = load_env_creator(creator) if isinstance(creator, str) else creator
    # Gymnasium spells the second way too, for old simulators.
    metadata = getattr(creator, "metadata", {})
    modes = metadata.get("render_modes", metadata.get("render.modes", []))
    return "rgb_array" in modes


def _without_a_screen() -> None:
    """SDL, which most simulators draw with, else writes errors of sound and screens."""
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _not_installed(name: Any) -> ImportError:
    return ImportError(
        f"{name} needs packages that are not installed: pip install 'jaxrl-par[hosts]'"
    )


def time_limit(name: str, backend: str) -> int | None:
    """Environment steps of an episode of a simulator that `make` makes, None without a
    limit. Nothing is made.

    Raises:
      ValueError, ImportError: as `make`.
    """
    if backend == "envpool":
        return envpools.time_limit(name)
    return MAX_STEPS if name.startswith("ALE/") else _spec(name).max_episode_steps


def problems(name: str, backend: str) -> list[str]:
    """Why `make` would refuse these names, without making anything."""
    if backend not in backends():
        return [f"backend: {unknown_name('backend', backend, backends())}"]
    try:
        if backend == "envpool":
            check_name(name)
        elif name.startswith("ALE/"):
            game_of(name)
        else:
            _spec(name)
    except (ImportError, ValueError) as error:
        return [f"env_name: {error}"]
    return []
