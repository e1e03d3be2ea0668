"""Where a script begins."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxrl_par.cli import entry


@pytest.mark.parametrize(
    ("home", "cache", "expected"),
    [("/home/me", "", "/home/me/.cache"), ("/home/me", "/c", "/c"), (None, "", None)],
)
def test_compiled_programs_are_kept_where_a_user_has_a_place(
    monkeypatch, home, cache, expected
):
    """A user of a container may have no home."""

    def found():
        if home is None:
            raise RuntimeError("Could not determine home directory.")
        return Path(home)

    told = {}
    values = {"jax_compilation_cache_dir": None}
    config = SimpleNamespace(values=values, update=told.__setitem__)
    monkeypatch.setattr(entry, "jax", SimpleNamespace(config=config))
    monkeypatch.setattr(Path, "home", found)
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    entry.configure_jax()
    kept = told.get("jax_compilation_cache_dir")
    assert kept == (expected and f"{expected}/jaxrl_par")
