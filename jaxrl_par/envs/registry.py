"""Environments by name: our own, all of gymnax, and those of suites."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from inspect import signature
from typing import Any

from jaxrl_par.envs import catalogue
from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.catalogue import (
    FAMILIES,
    family_and_sizes,
    is_name,
    tasks,
)
from jaxrl_par.envs.gymnax import from_gymnax
from jaxrl_par.envs.raw import as_written, from_raw
from jaxrl_par.envs.resets import Resets
from jaxrl_par.envs.several import several
from jaxrl_par.envs.suites import table
from jaxrl_par.envs.trials import trials
from jaxrl_par.errors import RefusedError, unknown_name


def make(
    name: str, num_envs: int, *, resets: Resets = Resets(), **params: Any
) -> Environment:
    """Copies of an environment, with statistics of their episodes.

    Args:
      name: as gymnax registers it, such as "CartPole-v1" or "Breakout-MinAtar", or one
        of ours: "IMaze-9x9", where any odd size from 5 will do, "MetaFetch-7x7",
        "Grasping-16x16", "MemoryChain-30" or "LQR-2x1", two states and one input; or
        trials in tasks, as many episodes as the last number says: "Bandits-5x10" are
        ten pulls of five arms, "RandomMDPs-10x25" have ten states; or a suite's, with
        the suite in front: "pgx::connect_four".
        Several joined by "+" are tasks of one network: see `several`.
      resets: where episodes begin, and whether the first ones are staggered.
      params: what differs from the default, fields of the environment's parameters or
        arguments of its class. Of trials, arguments of what makes their tasks. Of a
        suite, what `raw` of its module in `envs.suites` takes.

    Raises:
      ValueError: no such environment or parameter, a value is not allowed, `resets`
        does not fit, or its suite is not installed.
    """
    if not is_name(name):
        raise _unknown(name)
    if len(tasks(name)) > 1:
        if params:
            raise RefusedError(
                f"parameters are of one environment, and {name} is several"
            )
        return several(partial(make, resets=resets), name, num_envs)
    if table.is_of_a_suite(name):
        return _of_a_suite(name, num_envs, resets, params)
    sized = family_and_sizes(name)
    if sized is not None and FAMILIES[sized[0]].in_trials:
        if resets != Resets():
            raise RefusedError(f"trials, such as {name}, have fresh resets alone")
        return _trials(name, *sized, num_envs, params)
    constructor = _constructor(name)
    own = {*signature(constructor).parameters}
    env = constructor(**{x: params.pop(x) for x in own & params.keys()})
    defaults = env.default_params
    known = {*signature(type(defaults)).parameters}
    for unknown in params.keys() - known:
        raise unknown_name(f"parameter of {name}", unknown, known | own)
    for field, value in params.items():
        # gymnax selects between arrays, which must have the same dtype.
        if isinstance(value, int) and isinstance(getattr(defaults, field), float):
            params[field] = float(value)
    return from_gymnax(env, num_envs, defaults.replace(**params), name, resets)


def alone(name: str, **params: Any) -> Any:
    """One environment with gymnax's interface, for who looks into its state.

    Args:
      params: arguments of its class.

    Raises:
      RefusedError: there is no such environment, or it is several, or trials, or a
        suite's.
    """
    sized = family_and_sizes(name)
    in_trials = sized and FAMILIES[sized[0]].in_trials
    if len(tasks(name)) > 1 or in_trials or table.is_of_a_suite(name):
        raise RefusedError(f"{name} is no single environment, whose state one can know")
    if not is_name(name):
        raise _unknown(name)
    return _constructor(name)(**params)


def _unknown(name: str) -> RefusedError:
    from jaxrl_par.envs import host  # which needs much that others do not

    wrong = next(x for x in tasks(name) if not is_name(x))
    error = catalogue.unknown(wrong)
    if table.is_of_a_suite(wrong):
        return error
    if not host.problems(wrong, "auto"):
        return RefusedError(f"{wrong} is a simulator: use jaxrl_par.envs.host.make")
    return RefusedError(f"{error}. Names of simulators are for envs.host.make")


def _of_a_suite(
    name: str, num_envs: int, resets: Resets, params: dict[str, Any]
) -> Environment:
    suite, _, task = name.partition(table.MARK)
    table.imported(suite)
    adapter = import_module(f"jaxrl_par.envs.suites.{suite}")
    _, *known = signature(adapter.raw).parameters.values()
    if all(x.kind is not x.VAR_KEYWORD for x in known):  # else it refuses them itself
        for unknown in params.keys() - {x.name for x in known}:
            allowed = [x.name for x in known]
            raise unknown_name(f"parameter of {name}", unknown, allowed)
    try:
        return from_raw(adapter.raw(task, **params), num_envs, name, resets)
    except RefusedError:
        raise
    except Exception as error:  # of any kind: suites check little of what they get
        if not params:
            raise
        given = ", ".join(f"{x} = {value!r:.60}" for x, value in params.items())
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise RefusedError(f"{name} cannot be made with {given}: {why}") from error


def _trials(
    name: str,
    family: str,
    sizes: tuple[int, ...],
    num_envs: int,
    params: dict[str, Any],
) -> Environment:
    *sizes_of_tasks, num_episodes = sizes
    maker = partial(_maker(family), *sizes_of_tasks)
    known = signature(maker).parameters
    for unknown in params.keys() - known.keys():
        raise unknown_name(f"parameter of {name}", unknown, known)
    return trials(maker(**params), num_envs, num_episodes, name)


def _constructor(name: str) -> Callable[..., Any]:
    """Makes an environment with gymnax's interface from what cannot be traced."""
    sized = family_and_sizes(name)
    if sized is None:
        import gymnax

        # Its own environments take nothing that one would want to change.
        return as_written(lambda: gymnax.make(name)[0])
    family, sizes = sized
    return partial(_maker(family), *sizes)


def _maker(family: str) -> Callable[..., Any]:
    module, _, function = FAMILIES[family].maker.rpartition(".")
    return getattr(import_module(f"jaxrl_par.envs.{module}"), function)
