"""The command `jaxrl-par`, also as `python -m jaxrl_par`.

What a command needs is imported when it is called: to tell what there is, neither JAX
nor any other library.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

from jaxrl_par import __version__, presets
from jaxrl_par.envs import catalogue
from jaxrl_par.envs.suites import table
from jaxrl_par.errors import nearest
from jaxrl_par.exit_codes import ended_at_once
from jaxrl_par.kept import run_or_help
from jaxrl_par.pipes import while_it_is_read

_USAGE = """\
usage: jaxrl-par EXPERIMENT [OPTIONS]    trains; EXPERIMENT --help lists the options
       jaxrl-par COMMAND ...
"""


class _Command(NamedTuple):
    """What is no experiment."""

    arguments: str
    summary: str
    run: Callable[[Sequence[str]], None]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command.

    Args:
      argv: by default that of the process.

    Raises:
      SystemExit: code 2, after a sentence, if there is no such command, or as the
        command itself raises.
    """
    argv = sys.argv[1:] if argv is None else argv
    name, *rest = argv or ["--help"]
    if name in presets.SUMMARIES:
        presets.launch(name, rest, program=f"jaxrl-par {name}")
        return
    with while_it_is_read():
        if name in ("-h", "--help"):
            print(_help())
        elif name == "--version":
            print(f"jaxrl-par {__version__}")
        elif name in _COMMANDS:
            _COMMANDS[name].run(rest)
        else:
            known = [*_COMMANDS, *presets.SUMMARIES, "--help", "--version"]
            _refuse(f"unknown command {name!r}{nearest(name, known)}")


def _help() -> str:
    commands = {f"{x} {one.arguments}": one.summary for x, one in _COMMANDS.items()}
    both = {"experiments": presets.SUMMARIES, "commands": commands}
    width = max(len(name) for part in both.values() for name in part)
    lines = [_USAGE]
    for title, part in both.items():
        lines += [f"{title}:", *(f"  {x:{width}}  {told}" for x, told in part.items())]
        lines.append("")
    return "\n".join([*lines, "--version tells the version, --help this."])


def _list_envs(rest: Sequence[str]) -> None:
    """Names of environments, all that contain each of the words."""
    ours = {"ours, in any size": catalogue.own_names()}
    listed = ours | {"gymnax": catalogue.gymnax_names()} | table.names()
    simulators = catalogue.simulator_names()
    found = False
    for source, names in (listed | simulators).items():
        kept = [x for x in names if all(word.lower() in x.lower() for word in rest)]
        found = found or bool(kept)
        if kept:
            print(f"{source}:", *(f"  {x}" for x in kept), sep="\n")
    if not found:
        _refuse(f"no environment has {' and '.join(map(repr, rest))} in its name")
    if rest:
        return
    for told in table.refused().values():
        print(f"Not listed: {told}")
    if absent := [x for x in table.SUITES if x not in table.names()]:
        print(f"Suites: pip install 'jaxrl-par[{','.join(absent)}]'")
    if not simulators:
        print("Simulators: pip install 'jaxrl-par[hosts]'")


def _launch(rest: Sequence[str]) -> None:
    import_module("jaxrl_par.hosts.launcher").launch_command(rest)


def _later(name: str, called: str = "") -> Callable[[Sequence[str]], None]:
    """A command that needs JAX, or what is as slow to import: a module of `cli`.

    Args:
      called: the command, where it is not the module's name.
    """

    def command(rest: Sequence[str]) -> None:
        def run() -> None:
            with import_module("jaxrl_par.cli").sentences():
                module = import_module(f"jaxrl_par.cli.{name}")
                getattr(module, f"{name}_command")(rest)

        with ended_at_once():
            run_or_help(run, rest, called or name)

    return command


def _refuse(told: str) -> None:
    print(f"error: {told}\njaxrl-par --help lists all commands", file=sys.stderr)
    raise SystemExit(2)


_COMMANDS = {
    "compare": _Command(
        "FOLDER ...",
        "a table and a picture of runs, and what differs in their settings",
        _later("compare"),
    ),
    "evaluate": _Command(
        "FOLDER",
        "a run once more in its environments, and an episode as a film",
        _later("evaluate"),
    ),
    "export": _Command(
        "FOLDER",
        "what acts in a run, to act with NumPy, StableHLO or ONNX",
        _later("export"),
    ),
    "launch": _Command(
        "-n N -- EXPERIMENT",
        "one run in N processes on this host, which go on when one dies",
        _launch,
    ),
    "list-envs": _Command(
        "[WORD ...]", "names of environments, and of simulators installed", _list_envs
    ),
    "report": _Command(
        "FOLDER ...",
        "the page of a run, for a browser, finished or not",
        _later("report"),
    ),
    "record-demonstrations": _Command(
        "FOLDER",
        "what a run's agent does, to be learned from: see r2d3",
        _later("record", "record-demonstrations"),
    ),
}

if __name__ == "__main__":
    main()
