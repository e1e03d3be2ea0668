"""Settings from the command line and a file, refused as a whole if any is wrong.

What a config is, and what is wrong with one, is in `errors`. All problems of all parts
are reported at once, before a device is used: nothing is repaired one error at a time.
"""

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, cast

import tyro

from jaxrl_par.cli.fields import Config, must_be, options
from jaxrl_par.cli.files import ConfigError, over
from jaxrl_par.cli.help import help_of
from jaxrl_par.errors import nearest, problems
from jaxrl_par.training.provenance import KEY, experiment_name

_ABOUT_FILES = """\
--config FILE takes settings from the config.json of a run, or from YAML; options go \
over them. --print-config prints the settings as JSON, and ends."""


class _Command(NamedTuple):
    """A command line, without the options that are no setting."""

    argv: list[str]
    config: str | None
    """A file."""
    print_config: bool
    wrong: list[str]


def parse(
    config: type[Config],
    argv: Sequence[str] | None = None,
    program: str | None = None,
    about: str = "",
) -> Config:
    """The config that the command line asks for.

    Args:
      argv: by default that of the process.
      program: how the help calls the command; by default as it was started.
      about: what the help says besides.

    Raises:
      SystemExit: code 2 after all that is wrong was printed; 0 after `--help` and
        `--print-config`.
    """
    command = _split_off(sys.argv[1:] if argv is None else argv)
    wrong = list(command.wrong)
    base, in_file = config(), []
    if command.config is not None:
        base = over(base, Path(command.config), in_file)
        wrong += [f"{command.config}: {line}" for line in in_file]
        in_file = problems(base, unnamed=tyro.conf.OmitArgPrefixes)
    if _asks_for_help(command.argv) and not wrong:
        called = program or Path(sys.argv[0]).name
        print(help_of(base, called, "\n\n".join([_ABOUT_FILES, about])))
        raise SystemExit(0)
    parsed, refused = _parse_all(base, command.argv)
    wrong += refused
    said = set()
    for line in problems(parsed, unnamed=tyro.conf.OmitArgPrefixes):
        said.add(line.split()[0].rstrip(":"))
        wrong.append(f"{command.config}: {line}" if line in in_file else line)
    wrong += [x for x in _unread(parsed, command.argv) if x.split()[0] not in said]
    _refuse_any(wrong)
    if command.print_config:
        told = asdict(cast(Any, parsed)) | {
            KEY: {"experiment": experiment_name(config)}
        }
        print(json.dumps(told, indent=2, default=str))
        raise SystemExit(0)
    return parsed


def parse_words(
    config: type[Config], argv: Sequence[str], program: str, words: str
) -> tuple[list[str], Config]:
    """(words, options) of a command that takes words besides its options.

    Args:
      words: what they are in the help: "FOLDER" is one, "[FOLDER]" one or none, and
        "FOLDER ..." one or more.

    Raises:
      SystemExit: as `parse`.
    """
    base = config()
    if _asks_for_help(argv):
        print(help_of(base, f"{program} {words}", ""))
        raise SystemExit(0)
    given, others = _words_and_options(config, argv)
    parsed, wrong = _parse_all(base, others)
    wrong += problems(parsed)
    if not given and not words.startswith("["):
        wrong.append(f"{words.split()[0]} is missing")
    elif len(given) > 1 and not wrong and not words.endswith("..."):
        # With an option that is none, one of them may be its value.
        one = words.strip("[]")
        wrong.append(f"one {one} is taken, got {' and '.join(map(repr, given))}")
    _refuse_any(wrong)
    return given, parsed


def _asks_for_help(argv: Sequence[str]) -> bool:
    return bool({"-h", "--help"} & set(argv))


def _refuse_any(wrong: list[str]) -> None:
    if wrong:
        error = ConfigError("the options", wrong)
        print(f"error: {error}\n--help lists all options", file=sys.stderr)
        raise SystemExit(2)


def _words_and_options(
    config: type, argv: Sequence[str]
) -> tuple[list[str], list[str]]:
    """What belongs to no option, and the rest. After "--" nothing belongs to one."""
    taking = {option for option, hint, _ in options(config) if hint is not bool}
    given, others = [], []
    words = iter(argv)
    for word in words:
        if word == "--":
            given += words
        elif word.startswith("--"):
            others.append(word)
            if word.replace("_", "-") in taking:
                others += [value for value in [next(words, None)] if value is not None]
        else:
            given.append(word)
    return given, others


def _unread(config: Any, argv: Sequence[str]) -> list[str]:
    """A line for each option that changes nothing, even if it is given its default."""
    if not hasattr(config, "unread"):
        return []
    names = {option: dotted for option, _, dotted in options(type(config))}
    given = [word.partition("=")[0].replace("_", "-") for word in argv]
    found = {names[x]: config.unread(names[x]) for x in given if x in names}
    return [f"{name} {told}: leave it out" for name, told in found.items() if told]


def _split_off(argv: Sequence[str]) -> _Command:
    left, files, wrong = [], [], []
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name != "--config":
            left.append(word)
            continue
        file = value if equals else next(words, "")
        if not file or file.startswith("--"):
            wrong.append("--config needs a file")
            left += [file] * bool(file)
        files.append(file)
    if len(files) > 1:
        wrong.append(f"--config takes one file, got {' and '.join(files)}")
    file = files[0] if files and not wrong else None
    shown = "--print-config" in left
    return _Command([x for x in left if x != "--print-config"], file, shown, wrong)


def _parse_all(base: Config, argv: Sequence[str]) -> tuple[Config, list[str]]:
    """The config with the options that are right, and what is wrong with others."""
    parsed = _parse(base, argv)
    return _parse_each(base, argv) if parsed is None else (parsed, [])


def _parse(base: Config, argv: Sequence[str]) -> Config | None:
    """What tyro makes of the arguments, None if it refuses them."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(type(base), args=argv, default=base)
    except SystemExit:
        return None


def _parse_each(base: Config, argv: Sequence[str]) -> tuple[Config, list[str]]:
    """Each option by itself, since a parser stops at the first that is wrong.

    The config has the options that are right, so that their values can be checked too.
    """
    known = {option: hint for option, hint, _ in options(type(base))}
    right: list[str] = []
    wrong: list[str] = []
    for option in _split(argv):
        name, *inline = option[0].split("=", 1)
        hint = known.get(name.replace("_", "-"))
        given = " ".join(inline + option[1:]) or "nothing"
        if not name.startswith("--"):
            wrong.append(f"{' '.join(option)!r} belongs to no option")
        elif hint is None:
            wrong.append(f"unknown option {name!r}{nearest(name, known)}")
        elif _parse(base, option) is not None:
            right += option
        elif hint is bool:
            wrong.append(f"{name} takes no value, got {given}")
        else:
            wrong.append(must_be(name, hint, given))
    return tyro.cli(type(base), args=right, default=base), wrong


def _split(argv: Sequence[str]) -> list[list[str]]:
    """Each option with its values. What comes before any option is one, too."""
    split: list[list[str]] = []
    for word in argv:
        if word.startswith("--") or not split:
            split.append([])
        split[-1].append(word)
    return split
