"""What only shows a run may fail, or hang, without harm."""

import json
import resource
import sys
import threading
import time
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jaxrl_par.training import decoration
from jaxrl_par.training.decoration import Aside, WeightsAndBiases, harmless
from jaxrl_par.training.rows import JsonLines, TensorBoard, read_rows


def row(updates: int) -> dict:
    return {"updates": updates, "env_steps": updates, "seconds": 1.0, "loss": 0.5}


class Sink:
    """Keeps its calls; fails, or waits for ever, at a call of that name."""

    def __init__(self, fails: str = "", hangs: str = ""):
        self.calls, self._fails, self._hangs = [], fails, hangs

    def _called(self, name, value=None):
        if name == self._fails:
            raise OSError(28, "No space left on device")
        if name == self._hangs:
            threading.Event().wait()
        self.calls.append(value or name)

    def write(self, row):
        self._called("write", row)

    def flush(self):
        self._called("flush")

    def close(self):
        self._called("close")


def test_a_picture_that_fails_is_told_in_a_line(capsys):
    with harmless("curve.png"):
        raise ValueError("no colour\nand much more")
    told = "warning: curve.png: no colour. Training is not affected\n"
    assert capsys.readouterr().err == told


def test_rows_arrive_in_order_and_all_are_there_at_the_end():
    sink = Sink()
    aside = Aside("a sink", lambda: sink)
    rows = [row(i) for i in range(100)]
    for x in rows:
        aside.write(x)
    aside.flush()
    aside.close()
    assert sink.calls == [*rows, "flush", "close"]


@pytest.mark.parametrize("call", ["write", "flush", "close", "make"])
def test_a_sink_that_fails_is_told_once_and_left(capsys, call):
    def make():
        if call == "make":
            raise OSError(28, "No space left on device")
        return Sink(fails=call)

    aside = Aside("TensorBoard", make)
    for i in range(100):
        aside.write(row(i))
        aside.flush()
    aside.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: TensorBoard: [Errno 28] No space left")
    assert line.endswith("Training goes on without it")


def test_why_a_sink_failed_is_told_before_it_is_closed(monkeypatch):
    told = []

    def slowly(text):
        time.sleep(0.1)
        told.append(text)

    def make():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoration, "tell", slowly)
    aside = Aside("TensorBoard", make)
    aside.close()
    assert len(told) == 1


@pytest.mark.parametrize("call", ["write", "flush", "close"])
def test_nobody_waits_for_a_sink_that_hangs(capsys, monkeypatch, call):
    monkeypatch.setattr(decoration, "_BACKLOG", 50)
    aside = Aside("W&B", lambda: Sink(hangs=call), patience=0.1)
    for i in range(100):  # more than may wait
        aside.write(row(i))
        aside.flush()
    aside.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert "wait to be written" in line or "nothing was written for 0.1 seconds" in line


def test_a_full_disk_does_not_stop_tensorboard_from_being_written_to(tmp_path, capsys):
    """tensorboardX's own writer then waits for ever in `add_scalar`."""
    aside = Aside("TensorBoard", lambda: TensorBoard(tmp_path / "board"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        for i in range(1000):
            aside.write(row(i))
        aside.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "warning: TensorBoard: [Errno 27] File too large" in capsys.readouterr().err
    events = EventAccumulator(str(tmp_path / "board")).Reload().Scalars("loss")
    assert [x.step for x in events] == list(range(len(events))) and len(events) > 20


def test_metrics_wait_for_room_and_are_all_there_then(tmp_path, capsys):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    size = len(json.dumps(row(0))) + 1
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * size + 7, limits[1]))
    try:
        for i in range(9):
            lines.write(row(i))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_rows(tmp_path / "metrics.jsonl") == [row(i) for i in range(3)]
    assert lines.rows == [row(i) for i in range(9)]
    lines.write(row(9))
    lines.close()
    assert read_rows(tmp_path / "metrics.jsonl") == [row(i) for i in range(10)]
    (line,) = capsys.readouterr().err.splitlines()
    assert "no room to write" in line and "Training goes on" in line


def test_metrics_that_are_no_file_do_not_keep_a_run_from_starting(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").mkdir()
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.write(row(0))
    lines.flush()
    lines.close()
    assert lines.rows == [row(0)]
    assert "metrics.jsonl cannot be read: is a directory" in capsys.readouterr().err


# W&B ------------------------------------------------------------------------------


class Service:
    """As much of wandb 0.31 as is used, with the signatures that it has there."""

    class Error(Exception):
        pass

    def __init__(self, key: bool = True, reachable: bool = True):
        self.key, self.reachable, self.runs = key, reachable, []

    def Settings(self, init_timeout: float = 90.0, finish_timeout: float = 0.0):  # noqa: N802
        assert 0 < init_timeout <= 60 and 0 < finish_timeout <= 120
        return "settings"

    def login(
        self, key=None, relogin=None, host=None, force=None, timeout=None, verify=True,
        referrer=None, prompt=True,
    ) -> bool:  # fmt: skip
        assert not prompt  # which would wait for somebody to type a key
        return self.key

    def init(
        self, entity=None, project=None, dir=None, id=None, name=None, notes=None,
        tags=None, config=None, config_exclude_keys=None, config_include_keys=None,
        allow_val_change=None, group=None, job_type=None, mode=None, force=None,
        reinit=None, resume=None, resume_from=None, fork_from=None, save_code=None,
        tensorboard=None, sync_tensorboard=None, monitor_gym=None, settings=None,
    ):  # fmt: skip
        if mode != "offline" and not self.reachable:
            raise self.Error("Run initialization has timed out after 30.0 sec.\nHint")
        if resume == "never" and id in [run["id"] for run in self.runs]:
            raise self.Error(f"run {id} exists")
        self.runs.append({"id": id, "mode": mode, "name": name, "rows": []})
        run = self.runs[-1]
        return types.SimpleNamespace(
            log=lambda data, step=None, commit=None: run["rows"].append((step, data)),
            finish=lambda exit_code=None: run.update(finished=True),
        )


def logged(service: Service, folder, monkeypatch) -> dict:
    monkeypatch.setitem(sys.modules, "wandb", service)
    folder.mkdir(exist_ok=True)
    run = WeightsAndBiases(folder, folder / "wandb.json", {"seed": 0})
    run.write(row(5) | {"members": [1.0, None, 3.0]})
    run.flush()
    run.close()
    assert service.runs[-1]["finished"]
    ((step, data),) = service.runs[-1]["rows"]
    assert step == 5 and data["members"] == 2.0
    return service.runs[-1]


def test_each_run_has_an_id_of_its_own_and_goes_on_in_it(tmp_path, monkeypatch):
    service = Service()
    first, again, other = (
        logged(service, tmp_path / name, monkeypatch) for name in ("a", "a", "b")
    )
    assert first["id"] == again["id"] != other["id"]
    assert first["name"] == "a" and first["mode"] is None
    elsewhere = logged(service, tmp_path / "runs", monkeypatch)
    assert elsewhere["id"] not in (first["id"], other["id"])


@pytest.mark.parametrize(
    ("service", "message"),
    [
        (Service(key=False), "there is no key: see `wandb login`"),
        (Service(reachable=False), "initialization has timed out after 30.0 sec."),
    ],
)
def test_without_a_key_or_service_it_is_kept_here(
    tmp_path, monkeypatch, capsys, service, message
):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert logged(service, tmp_path / "a", monkeypatch)["mode"] == "offline"
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and "wandb sync" in line


def test_the_mode_that_a_user_chose_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    service = Service(key=False)
    assert logged(service, tmp_path / "a", monkeypatch)["mode"] is None
    assert not capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "{}", '{"id": 7}', '{"id": ""}', "x"])
def test_an_id_that_was_changed_by_hand_is_told(tmp_path, monkeypatch, capsys, content):
    monkeypatch.setitem(sys.modules, "wandb", Service())
    path = tmp_path / "wandb.json"
    path.write_text(content)
    aside = Aside("W&B", lambda: WeightsAndBiases(tmp_path, path, {}))
    aside.write(row(0))
    aside.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert f"warning: W&B: {path}, line 1: " in line
