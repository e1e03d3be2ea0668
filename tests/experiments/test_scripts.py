"""Every preset has a script, and there are few others."""

from pathlib import Path

import pytest

from jaxrl_par import presets

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("name", presets.SUMMARIES)
def test_the_script_of_a_preset_runs_it_and_does_nothing_else(name):
    text = (EXPERIMENTS / f"{name}.py").read_text()
    assert text.endswith(f'if __name__ == "__main__":\n    presets.launch("{name}")\n')
    assert len([x for x in text.splitlines() if x]) <= 5


def test_no_script_is_left_out():
    """But for studies, which have a config of their own, and the page of results."""
    scripts = {x.stem for x in EXPERIMENTS.glob("*.py")}
    studies = {x for x in scripts if x.endswith("_study")}
    studies |= {"staleness", "worker_scaling", "figures"}
    assert scripts == presets.SUMMARIES.keys() | studies
