"""YAML as its version 1.2 reads it: 1e-3 is a number, `no` and `off` are words.

The library reads 1.1, to which 1e-3 is a word, 010 is 8 and `no` is false.

Source: YAML 1.2.2, section 10.3, the core schema; underscores in numbers are ours.
"""

import re
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_OURS = "value:"
"""Of values that are no text. Who writes !!int means what the library would read."""


def loads(text: str, wrong: list[str]) -> Any:
    """What the text says; what makes no sense is added to `wrong`."""
    try:
        loader = _Loader(text)
        loader.wrong = wrong
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        wrong.append(f"it is no YAML{line}: {error.problem}")
    except yaml.YAMLError as error:
        wrong.append(f"it is no YAML: {str(error).partition(chr(10))[0]}")
    except ValueError as error:  # an integer of many thousand digits
        wrong.append(f"it is no YAML: {error}")
    return None


class _Loader(yaml.SafeLoader):
    # Emptied: those of the library are of YAML 1.1, dates among them.
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012
    yaml_constructors = {  # noqa: RUF012
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (f"{_TAG}str", f"{_TAG}seq", f"{_TAG}map", None)
    }
    wrong: list[str]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    told = f"{key.value} is there twice, again in line {line}"
                    self.wrong.append(told)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _word(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool | None:
    return {"true": True, "false": False}.get(str(node.value).lower())


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    text = loader.construct_scalar(node).replace("_", "")
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text)
    return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))


_NUMBER = r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?"
_SPECIAL = r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
for _name, _words, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("number", f"{_NUMBER}|{_SPECIAL}", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_OURS + _name, re.compile(f"(?:{_words})$"), _first)
    _Loader.add_constructor(_OURS + _name, _number if _name == "number" else _word)
