"""The command `jaxrl-par`: what it lists, starts and refuses."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

import jaxrl_par
from jaxrl_par import presets
from jaxrl_par.__main__ import main

COMMAND = [sys.executable, "-m", "jaxrl_par"]


def refused(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_help_lists_every_experiment_and_command(capsys):
    main(["--help"])
    told = capsys.readouterr().out
    assert all(f"  {x} " in told and y in told for x, y in presets.SUMMARIES.items())
    assert "  list-envs [WORD ...]  " in told
    assert max(map(len, told.splitlines())) <= 100
    main([])
    assert capsys.readouterr().out == told
    main(["--version"])
    assert capsys.readouterr().out == f"jaxrl-par {jaxrl_par.__version__}\n"


def test_an_unknown_command_gets_the_nearest_name(capsys):
    assert "unknown command 'impla'; did you mean 'impala'?" in refused(capsys, "impla")
    assert "; did you mean 'list-envs'?" in refused(capsys, "list")
    assert "unknown command 'xyz'\n" in refused(capsys, "xyz")


def test_an_experiment_gets_its_options_and_is_called_by_its_name(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["ppo", "--ppo.clip", "0.3", "--print-config"])
    assert stop.value.code == 0
    config = json.loads(capsys.readouterr().out)
    assert config["ppo"]["clip"] == 0.3
    assert config["provenance"] == {"experiment": "ppo"}
    with pytest.raises(SystemExit):
        main(["ppo", "--help"])
    assert "usage: jaxrl-par ppo " in capsys.readouterr().out
    assert "did you mean '--num-envs'?" in refused(capsys, "ppo", "--num-evns", "3")


def test_environments_are_listed_by_words(capsys):
    main(["list-envs"])
    told = capsys.readouterr().out
    assert "ours, in any size:\n  IMaze-9x9\n" in told
    assert "gymnax:\n  CartPole-v1\n" in told
    main(["list-envs", "minatar", "BREAK"])
    told = capsys.readouterr().out
    assert told.startswith("gymnax:\n  Breakout-MinAtar\n")
    assert "CartPole" not in told and "Asterix" not in told
    assert "no environment has 'xyzzy' in its name" in refused(
        capsys, "list-envs", "xyzzy"
    )


def test_simulators_that_are_installed_are_listed(capsys):
    pytest.importorskip("gymnasium")
    pytest.importorskip("ale_py")
    main(["list-envs", "pong"])
    assert "ALE:\n  ALE/Pong-v5\n" in capsys.readouterr().out


def test_what_only_tells_imports_no_jax():
    code = """
import sys
from jaxrl_par.__main__ import main
loaded = lambda: {"jax", "flax", "optax", "orbax", "tyro", "rich"} & sys.modules.keys()
main(["--help"]), main(["--version"]), print(loaded())
main(["list-envs"]), print(loaded() | {"gymnax"} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "\nset()\n" in done.stdout, done
    # EnvPool, where it is installed, imports JAX itself.
    expected = "{'jax'}" if find_spec("envpool") else "set()"
    assert done.stdout.endswith(f"\n{expected}\n"), done


@pytest.mark.slow
def test_it_ends_without_a_word_when_its_reader_goes():
    command = subprocess.Popen(
        [*COMMAND, "list-envs"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout is not None and command.stderr is not None
    command.stdout.close()
    assert command.stderr.read() == b""
    assert command.wait(60) == 1
    command.stderr.close()


def test_runs_are_compared_and_errors_are_sentences(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(tmp_path / "none")])
    assert stop.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ") and "Traceback" not in told


def test_modules_are_there_without_being_imported():
    """As they were when the package imported all of them."""
    code = "import jaxrl_par as jp; jp.losses, jp.envs.host.make, jp.envs.make, jp.a2c"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = jaxrl_par.nothing
