"""What a user of the README meets: the names of the package, and its two programs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_training import toy

import jaxrl_par as jp
from jaxrl_par import cli, presets, training
from jaxrl_par.training.comparison import leaves, to_json
from jaxrl_par.types import Mean

ROOT = Path(__file__).parent.parent
PAGES = {
    name: (ROOT / name).read_text()
    for name in (
        "README.md",
        "experiments/README.md",
        "notebooks/own_code.md",
        "notebooks/replay.md",
        "notebooks/where_it_runs.md",
        "notebooks/coming_from.md",
        "notebooks/troubleshooting.md",
    )
}


def blocks(page: str, language: str = "python") -> list[str]:
    """The pieces of a page in that language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


(SHORTEST,) = blocks("README.md")
OWN_LOSS, OWN_ENV, OWN_SIMULATOR, CHECKS = blocks("notebooks/own_code.md")
(REPLAY,) = blocks("notebooks/replay.md")


def test_importing_starts_no_device_and_loads_no_simulator():
    code = """
import sys
import jaxrl_par
from jax._src import xla_bridge
loaded = {"gymnax", "gymnasium", "ale_py", "envpool", "tyro", "orbax", "matplotlib",
          "tensorboardX"} & sys.modules.keys()
print(len(xla_bridge._backends), sorted(loaded))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "0 []", done.stderr


def test_every_name_is_there():
    assert all(hasattr(jp, name) for name in jp.__all__)
    assert sorted(jp.__all__) == jp.__all__


def test_the_shortest_program_has_three_lines_and_an_own_loss_less_than_forty():
    statements = [x for x in SHORTEST.splitlines() if x and "import" not in x]
    assert len(statements) == 4  # three, and one that prints
    assert len([x for x in OWN_LOSS.splitlines() if x]) < 40


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 250


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page):
    """Its links, with their headings, and the scripts and notebooks in its text."""
    here = (ROOT / page).parent
    for target, _, heading in re.findall(r"\]\(([^)#]*)(#([^)]*))?\)", PAGES[page]):
        file = here / target if target else ROOT / page
        assert file.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert heading in {
                re.sub(r"[^\w -]", "", x.lower()).replace(" ", "-") for x in titles
            }
    named = re.findall(r"\b(?:experiments|tests|notebooks)/[\w/]+\.\w+", PAGES[page])
    assert [x for x in named if not (ROOT / x).exists()] == []


def test_every_script_is_in_the_table_of_scripts():
    scripts = {x.name for x in (ROOT / "experiments").glob("*.py")} - {"figures.py"}
    rows = re.findall(
        r"^\| `experiments/(\w+\.py)`", PAGES["experiments/README.md"], re.MULTILINE
    )
    assert sorted(rows) == sorted(scripts)


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(SHORTEST, id="compiled"),
        pytest.param(OWN_LOSS, id="threads", marks=pytest.mark.slow),
        pytest.param(REPLAY, id="replay", marks=pytest.mark.slow),
    ],
)
def test_the_programs_of_the_pages_run(program, capsys):
    told, value = run_program(program, capsys).split(":")
    assert told == "mean return" and float(value) > 5


def run_program(text: str, capsys) -> str:
    """What it prints if it trains for a few updates."""
    shorter, count = re.subn(r"num_updates=\d+", "num_updates=20", text)
    assert count == 1
    exec(compile(shorter, "page", "exec"), {"__name__": "page"})
    return capsys.readouterr().out


def test_an_own_environment_takes_twenty_lines_and_runs(capsys):
    body = OWN_ENV.partition("class State")[2].partition("\n\n\nenv =")[0]
    assert len([x for x in body.splitlines() if x]) <= 20
    told, value = run_program(OWN_ENV, capsys).split(":")
    assert told == "mean return" and 0 <= float(value) <= 1


def test_the_script_of_an_own_simulator_has_all_options(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["arm.py", "--num-envs", "8", "--print-config"])
    with pytest.raises(SystemExit) as stop:
        exec(compile(OWN_SIMULATOR, "arm.py", "exec"), {"__name__": "__main__"})
    assert stop.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["env_name"], told["num_envs"]) == ("Arm", 8)


ARM = """
class Arm(gymnasium.Env):  # who says what is shown is paid
    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.shown = int(self.np_random.integers(2))
        return np.float32([self.shown]), {}

    def step(self, action):
        return np.float32([self.shown]), float(action == self.shown), True, False, {}
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own_environment", "own_algorithm"])
def test_a_newcomer_from_an_empty_home_needs_few_lines(name, tmp_path):
    """An environment of Gymnasium's, trained in threads, in less than 20 lines, and an
    algorithm in less than 40: as files, by a user who has nothing but the package."""
    above, below = OWN_SIMULATOR.split("\n\n\n", 1)
    environment = f"import gymnasium\nimport numpy as np\n\n{above}\n\n{ARM}\n\n{below}"
    text, most = {
        "own_environment": (environment, 20),
        "own_algorithm": (OWN_LOSS, 40),
    }[name]
    assert len([x for x in text.splitlines() if x]) < most
    (tmp_path / f"{name}.py").write_text(
        text.replace("num_updates=1000", "num_updates=50")
    )
    given = ["--topology", "threads", "--total-steps", "20000"]
    given += ["--evaluation-max-steps", "10", "--no-gif"]
    done = subprocess.run(
        [sys.executable, f"{name}.py", *(given if name == "own_environment" else [])],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path / "home"),
             "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    if name == "own_algorithm":
        assert float(done.stdout.rpartition("mean return:")[2]) > 15
        return
    (summary,) = tmp_path.glob("runs/*/summary.json")
    found = json.loads(summary.read_text())["evaluation"]
    assert found["greedy_return"] > 0.9


def test_the_config_of_the_page_is_one(tmp_path):
    (text,) = blocks("experiments/README.md", "yaml")
    (tmp_path / "mine.yaml").write_text(text)
    argv = ["--config", str(tmp_path / "mine.yaml")]
    args = cli.parse(presets.get("ppo").config, argv)
    assert (args.optimizer.learning_rate, args.training.log_interval) == (1e-3, 10)


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_what_users_of_others_are_told_is_our_default(name):
    section = PAGES["notebooks/coming_from.md"].partition(f"## {name.upper()}\n")[2]
    known = dict(leaves(to_json(presets.get(name).config())))
    told = {}
    for line in section.partition("\n## ")[0].splitlines():
        options, ours, *_ = [*line.strip("| ").split(" | "), ""]
        names = re.findall(r"`--([\w.-]+)`", options)
        numbers = re.findall(r"[\d][\d,.e-]*[\d]|\d|on\b|off\b", ours)
        told |= dict(zip(names, numbers, strict=False))
    assert len(told) >= 8
    for option, number in told.items():
        value = known[option.replace("-", "_")]
        shown = {"on": True, "off": False}
        assert value == shown.get(number) or value == float(number.replace(",", "")), (
            option
        )


@pytest.mark.slow
def test_a_run_is_loaded_and_compared_as_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = {"evaluation_envs": 2, "evaluation_episodes": 1, "tensorboard": False}
    preset = presets.get("a2c")
    kept = training.TrainingConfig(**settings)
    preset.run(preset.config(total_steps=10_000, training=kept))
    assert Path("runs/a2c-CartPole-v1/episode.gif").exists()
    assert "All settings" in Path("runs/a2c-CartPole-v1/report.html").read_text()
    loading, comparing, _ = blocks("experiments/README.md")
    assert len([x for x in loading.splitlines() if x and "import" not in x]) == 3
    capsys.readouterr()
    exec(compile(loading + comparing, "page", "exec"), {})
    told = capsys.readouterr().out
    assert "sampled_return" in told and "a2c-CartPole-v1  CartPole-v1" in told
    assert Path("episode.gif").exists() and Path("comparison.png").exists()


def test_train_divides_means_and_says_where_nothing_was_counted():
    program = toy()

    def step(run):
        even = (run.progress.updates.units % 2 == 0).astype(jnp.float32)
        run, metrics = program.step(run)
        return run, metrics | {"half": Mean(even, 2 * even)}

    run, metrics = jp.train(program._replace(step=step), num_updates=4)
    assert int(run.progress.updates) == 4
    assert {type(x) for x in metrics.values()} == {np.ndarray}
    np.testing.assert_array_equal(metrics["episode_return"], [0, 1, 2, 3])
    np.testing.assert_array_equal(metrics["half"], [0.5, np.nan, 0.5, np.nan])


def test_train_gives_other_numbers_for_another_seed_and_the_same_for_the_same():
    def weights(seed: int):
        run, _ = jp.train(toy(), num_updates=2, seed=seed)
        return jax.device_get(run.learner.params["w"])

    np.testing.assert_array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))


def test_no_updates_are_refused():
    with pytest.raises(ValueError, match="num_updates must be at least 1, got 0"):
        jp.train(toy(), num_updates=0)
