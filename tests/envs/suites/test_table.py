"""Names of suites: listed without importing them, and refused in one sentence."""

import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from jaxrl_par import __main__, cli, envs, presets
from jaxrl_par.envs import catalogue
from jaxrl_par.envs.suites import listing, table
from jaxrl_par.errors import RefusedError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A suite of three tasks, installed as version 2.5 of what it asks for as 2."""
    (tmp_path / "chess_suite").mkdir()
    source = 'import jax\nTASKS = ["queen-v0", "rook-v0", "bishop-v0"]\n'
    (tmp_path / "chess_suite" / "__init__.py").write_text(source)
    about = tmp_path / "chess_suite-2.5.dist-info"
    about.mkdir()
    asks = "Requires-Dist: jax<0.4\n"
    told = f"Metadata-Version: 2.1\nName: chess-suite\nVersion: 2.5\n{asks}"
    (about / "METADATA").write_text(told)
    monkeypatch.syspath_prepend(tmp_path)

    def names(folder: Path) -> tuple[str, ...]:
        found = listing.assigned(folder / "__init__.py", "TASKS")
        return tuple(listing._strings(found))

    suite = table.Suite(("chess-suite>=2,<3",), "chess_suite", names)
    table._known.cache_clear()
    monkeypatch.setitem(table.SUITES, "fake", suite)
    yield suite
    table._known.cache_clear()
    sys.modules.pop("chess_suite", None)


def test_extras_are_what_the_table_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert {x: list(suite.needs) for x, suite in table.SUITES.items()}.items() <= (
        extras.items()
    )


def test_names_are_read_and_not_imported(fake):
    assert table.names()["fake"] == (
        "fake::queen-v0",
        "fake::rook-v0",
        "fake::bishop-v0",
    )
    assert envs.is_name("fake::rook-v0") and not envs.is_name("fake::rook")
    assert "fake::queen-v0" in envs.names() and "chess_suite" not in sys.modules


@pytest.mark.parametrize(
    "name, told",
    [
        (
            "fake::roock-v0",
            "did you mean 'fake::rook-v0'? fake has: queen-v0, rook",
        ),
        ("fake::rook", "did you mean 'fake::rook-v0'?"),
        ("fke::rook-v0", "unknown suite 'fke'; did you mean 'fake'? Known: "),
        ("chess_suite::rook-v0", "unknown suite 'chess_suite'; did you mean 'fake'?"),
        ("zzzz::rook-v0", "unknown suite 'zzzz'. Known: "),
        ("::", "unknown suite ''. Known: "),
        ("queen-v0", "did you mean 'fake::queen-v0'?"),
        ("bishop-v", "did you mean 'fake::bishop-v0'?"),
        (
            "CartPole-v1+fake::roo-v0",
            "unknown environment 'fake::roo-v0'; did you mean",
        ),
    ],
)
def test_names_are_corrected_across_suites(fake, name, told):
    with pytest.raises(RefusedError) as refused:
        envs.make(name, 1)
    assert told in str(refused.value)
    assert told in str(catalogue.unknown(name))


def test_a_task_of_another_suite_is_named(fake, monkeypatch):
    other = fake._replace(names=lambda _: ("pawn",))
    monkeypatch.setitem(table.SUITES, "more", other)
    assert "did you mean 'more::pawn'?" in str(table.refusal("fake::pawn"))


def test_a_suite_that_is_not_installed_names_its_extra(monkeypatch):
    absent = table.Suite(("nowhere-to-be-found>=1",), "nowhere", lambda _: ("a",))
    monkeypatch.setitem(table.SUITES, "absent", absent)
    expected = (
        "absent::a cannot be made: nowhere-to-be-found is not installed:"
        " pip install 'jaxrl-par[absent]'"
    )
    with pytest.raises(RefusedError) as refused:
        envs.make("absent::a", 1)
    assert str(refused.value) == expected
    args = presets.get("ppo").config(env_name="absent::a")
    assert args.problems() == [f"env_name: {expected}"]
    threads = presets.get("impala_threads").config(env_name="absent::a")
    assert threads.problems() == [f"env_name: {expected}"]


def test_both_versions_are_named_where_they_clash(fake, monkeypatch):
    older = fake._replace(needs=("chess-suite>=2.6,<3",))
    monkeypatch.setitem(table.SUITES, "fake", older)
    table._known.cache_clear()
    told = (
        "chess-suite 2.5 is there, jaxrl-par reads chess-suite<3,>=2.6:"
        " pip install 'jaxrl-par[fake]'"
    )
    with pytest.raises(RefusedError, match="fake::rook-v0 cannot be made") as refused:
        envs.make("fake::rook-v0", 1)
    assert told in str(refused.value)
    assert table.refused()["fake"] == told and "fake" not in table.names()


def test_a_suite_that_breaks_beside_our_jax_says_what_met(fake, tmp_path):
    source = tmp_path / "chess_suite" / "__init__.py"
    source.write_text("TASKS = ['queen-v0']\nfrom jax import no_such_thing\n")
    with pytest.raises(
        RefusedError, match="cannot import name 'no_such_thing'"
    ) as told:
        envs.make("fake::queen-v0", 1)
    import jax

    assert "chess-suite 2.5 (it asks for jax<0.4) cannot be imported beside jax" in str(
        told.value
    )
    assert jax.__version__ in str(told.value)


def test_an_other_python_is_told(fake, monkeypatch):
    needs = ("chess-suite>=2; python_version < '3.9'",)
    monkeypatch.setitem(table.SUITES, "fake", fake._replace(needs=needs))
    assert table.problem("fake").startswith(
        "fake is not for this Python: chess-suite>=2"
    )


def test_parameters_are_corrected(fake, monkeypatch):
    adapter = ModuleType("jaxrl_par.envs.suites.fake")
    adapter.raw = lambda task, size=1: None
    monkeypatch.setitem(sys.modules, "jaxrl_par.envs.suites.fake", adapter)
    with pytest.raises(
        RefusedError, match="unknown parameter of fake::rook-v0 'sizes'"
    ):
        envs.make("fake::rook-v0", 1, sizes=2)


def test_the_command_lists_suites_and_what_installs_the_others(
    fake, capsys, monkeypatch
):
    absent = table.Suite(("nowhere-to-be-found>=1",), "nowhere", lambda _: ("a",))
    monkeypatch.setattr(table, "SUITES", {"fake": fake, "absent": absent})
    __main__.main(["list-envs"])
    told = capsys.readouterr().out
    assert "fake:\n  fake::queen-v0\n" in told
    assert "Suites: pip install 'jaxrl-par[absent]'" in told
    __main__.main(["list-envs", "queen"])
    assert capsys.readouterr().out == "fake:\n  fake::queen-v0\n"


def test_a_run_is_in_a_folder_that_every_disk_can_name():
    assert cli.in_a_path("pgx::go_9x9") == "pgx-go_9x9"
    assert cli.in_a_path("ALE/Pong-v5") == "ALE-Pong-v5"


@pytest.mark.slow
def test_neither_jax_nor_a_suite_is_imported_for_names():
    code = (
        "import sys; from jaxrl_par.envs.suites import table; table.names();"
        "known = {*table.SUITES, 'jax', 'brax', 'xminigrid', 'mujoco_playground'};"
        "loaded = known & sys.modules.keys(); assert not loaded, loaded;"
        "from jaxrl_par import envs; envs.make; loaded = known & sys.modules.keys();"
        "assert loaded == {'jax'}, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
