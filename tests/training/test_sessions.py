"""In a prompt or a notebook: a stop ends no session, and progress is drawn anew."""

import signal
import sys
from types import SimpleNamespace

import pytest
from toy_training import Args, run_toy

from jaxrl_par.training import TrainingConfig
from jaxrl_par.training.display import display
from jaxrl_par.training.interrupts import Interrupted
from jaxrl_par.training.sessions import in_notebook

ROW = {"env_steps": 1000, "steps_per_second": 50.0, "seconds": 20.0}


def stopped(tmp_path, capsys) -> str:
    """What is printed by a run that is stopped in its first chunk."""

    def evaluate(run):
        signal.raise_signal(signal.SIGINT)
        return {}

    settings = TrainingConfig(
        runs_dir=str(tmp_path), log_interval=5, evaluation_interval=5, tensorboard=False
    )
    run_toy(Args(training=settings), evaluate=evaluate)
    return capsys.readouterr().out


@pytest.mark.slow
def test_a_stop_is_no_exit_where_somebody_goes_on(tmp_path, monkeypatch, capsys):
    with pytest.raises(Interrupted):
        stopped(tmp_path, capsys)
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(KeyboardInterrupt, match="goes on with resume=True"):
        stopped(tmp_path, capsys)


class Cell:
    """The output of a notebook's cell."""

    def __init__(self):
        self.texts: list[str] = []

    def display(self, data, *, raw, display_id):
        assert raw and display_id
        self.texts.append(data["text/plain"])
        return self

    def update(self, data, *, raw):
        assert raw
        self.texts.append(data["text/plain"])


@pytest.fixture
def cell(monkeypatch) -> Cell:
    """That of a notebook without a kernel."""
    pytest.importorskip("IPython")
    cell = Cell()
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=1))
    monkeypatch.setattr("IPython.display.display", cell.display)
    return cell


def test_a_notebook_has_one_line_that_is_drawn_anew(cell, monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with display("mine") as show:
        for i in range(11):
            show(i / 10, ROW | {"episode_return": float(i)})
            now[0] += 0.11
    first, *later = cell.texts
    assert first == "mine  compiling"
    assert len(later) == 6, "at most five a second, and the last"
    assert later[-1].startswith("mine 100%  1,000 steps  50 steps/s  return 10.0  ▁")
    assert capsys.readouterr().out == ""


def test_a_terminal_is_no_notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=object))
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()
