"""Checkpoints: the same bits come back, or an error says why not."""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from toy_training import toy

from jaxrl_par import random
from jaxrl_par.loops import Run
from jaxrl_par.training.checkpoints import CheckpointError, Checkpoints, state_hash
from jaxrl_par.training.failures import DiskFullError
from jaxrl_par.training.steps import remove_unfinished

CONFIG = {"seed": 0, "part": {"rate": 0.1}}
PROGRAM = toy()
STEP = jax.jit(PROGRAM.step)


def run_at(step: int, seed: int = 0) -> Run:
    run = PROGRAM.init(random.key(seed))
    for _ in range(step):
        run, _ = STEP(run)
    return run


@pytest.fixture
def saved(tmp_path) -> Path:
    """A folder with the steps 1 and 2."""
    directory = tmp_path / "checkpoints"
    with Checkpoints(directory, CONFIG) as store:
        store.save(1, run_at(1))
        store.save(2, run_at(2))
    return directory


def restore(directory: Path, config=CONFIG, like: Run | None = None) -> Run | None:
    with Checkpoints(directory, config) as store:
        return store.restore(run_at(0) if like is None else like)


def largest_file(directory: Path) -> Path:
    return max(
        (path for path in directory.rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_every_kind_of_leaf_comes_back_the_same(saved):
    run, expected = restore(saved), run_at(2)
    assert state_hash(run) == state_hash(expected)
    assert jax.tree.structure(run) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(run), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
    # The key is still one, of the same kind.
    again, _ = STEP(run)
    assert state_hash(again) == state_hash(run_at(3))


def test_the_hash_sees_every_leaf():
    run = run_at(1)
    for i, leaf in enumerate(jax.tree.leaves(run)):
        leaves = jax.tree.leaves(run)
        if not leaf.size:
            changed = jnp.zeros((*leaf.shape, 1))
        elif jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            changed = jax.random.clone(jax.random.fold_in(random.key(1), 1))
            changed = jnp.broadcast_to(changed, leaf.shape)
        else:
            changed = ~leaf if leaf.dtype == bool else leaf + jnp.ones((), leaf.dtype)
        leaves[i] = changed
        other = jax.tree.unflatten(jax.tree.structure(run), leaves)
        assert state_hash(other) != state_hash(run), i


def test_the_newest_steps_are_kept(tmp_path):
    with Checkpoints(tmp_path / "c", CONFIG, keep=3) as store:
        assert store.restore(run_at(0)) is None
        for step in range(5):
            store.save(step, run_at(step))
        assert store.steps == [2, 3, 4]


def test_nothing_is_pickled(saved):
    texts = [path.read_bytes() for path in saved.rglob("*") if path.is_file()]
    assert not any(b"\x80\x04" in text[:2] or b"numpy.core" in text for text in texts)
    manifest = json.loads((saved / "2" / "manifest" / "metadata").read_text())
    leaf = manifest["leaves"]["learner.params.w"]
    assert (leaf["dtype"], leaf["shape"]) == ("float32", [256, 8])
    assert manifest["config"] == CONFIG


def test_a_flipped_bit_anywhere_never_gives_other_numbers(saved, tmp_path):
    hashes = {state_hash(run_at(step)) for step in (1, 2)}
    files = [path for path in (saved / "2").rglob("*") if path.stat().st_size]
    files = [path.relative_to(saved) for path in files if path.is_file()]
    assert len(files) > 5
    for number, path in enumerate(files):
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(saved, copy)
        flip(copy / path)
        assert state_hash(restore(copy)) in hashes, path


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def rewritten(saved: Path, **changed) -> None:
    """The manifest of step 2 as another program would have written it."""
    path = saved / "2" / "manifest" / "metadata"
    content = json.loads(path.read_text()) | changed
    del content["sha256"]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(content | {"sha256": digest}))


def test_a_step_of_other_versions_is_restored_and_both_are_named(saved):
    manifest = json.loads((saved / "2" / "manifest" / "metadata").read_text())
    assert manifest["versions"]["jax"] == version("jax")
    rewritten(saved, versions=manifest["versions"] | {"jax": "0.9.1"})
    with pytest.warns(UserWarning, match="was written by other versions") as caught:
        run = restore(saved)
    assert f"jax: '0.9.1' there, '{version('jax')}' now" in str(caught[0].message)
    assert run is not None and state_hash(run) == state_hash(run_at(2))


def test_leaves_that_another_version_made_otherwise_name_both_versions(saved):
    manifest = json.loads((saved / "2" / "manifest" / "metadata").read_text())
    shutil.rmtree(saved / "1")
    leaf = manifest["leaves"].pop("learner.params.w")
    rewritten(
        saved,
        versions=manifest["versions"] | {"flax": "0.1"},
        leaves=manifest["leaves"] | {"learner.params.kernel": leaf},
    )
    with pytest.raises(CheckpointError) as caught:
        restore(saved)
    assert "2 leaves are not those of this program" in str(caught.value)
    assert f"flax: '0.1' there, '{version('flax')}' now" in str(caught.value)


def test_a_layout_of_another_time_is_refused(saved):
    rewritten(saved, format=1)
    with pytest.raises(CheckpointError, match="has layout 1 of checkpoints"):
        restore(saved)
    assert (saved / "2").is_dir()


def test_a_step_written_with_keys_of_jax_restores_to_ours_and_back(saved, tmp_path):
    def with_keys(run: Run, impl) -> Run:
        def leaf(x):
            if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                return x
            return jax.random.wrap_key_data(jax.random.key_data(x), impl=impl)

        return jax.tree.map(leaf, run)

    theirs = with_keys(run_at(2), "threefry2x32")
    on_gpu = restore(saved, like=theirs)
    assert on_gpu is not None and on_gpu.key.dtype == jax.random.key(0).dtype
    with Checkpoints(tmp_path / "gpu", CONFIG) as store:
        store.save(2, on_gpu)
    back = restore(tmp_path / "gpu")
    assert back is not None and back.key.dtype == random.key(0).dtype
    assert state_hash(back) == state_hash(run_at(2)) == state_hash(on_gpu)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "json", "manifest"])
def test_a_damaged_step_falls_back_to_the_one_before(saved, damage):
    path = largest_file(saved / "2" / "state")
    manifest = saved / "2" / "manifest" / "metadata"
    if damage == "flip":
        flip(path)
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "delete":
        path.unlink()
    elif damage == "json":
        manifest.write_text(manifest.read_text()[:-20])
    else:
        # Still JSON, and of another config as it seems.
        manifest.write_text(manifest.read_text().replace('"rate": 0.1', '"rate": 0.7'))
    with pytest.warns(UserWarning, match="going back to step 1") as warned:
        run = restore(saved)
    assert state_hash(run) == state_hash(run_at(1))
    text = str(warned[0].message)
    assert str(saved) in text
    assert "leaf " in text or str(saved / "2") in text or "manifest" in text


def test_after_a_fallback_the_step_can_be_saved_again(saved):
    flip(largest_file(saved / "2" / "state"))
    with Checkpoints(saved, CONFIG) as store, pytest.warns(UserWarning):
        run, _ = STEP(store.restore(run_at(0)))
        store.save(2, run)
    assert (saved / "damaged-2").is_dir()
    assert state_hash(restore(saved)) == state_hash(run_at(2))


def test_without_a_usable_step_every_reason_is_given(saved):
    for step in ("1", "2"):
        flip(largest_file(saved / step / "state"))
    before = sorted(saved.rglob("*"))
    with pytest.raises(CheckpointError, match=r"(?s)no checkpoint.*step 2:.*step 1:"):
        restore(saved)
    assert sorted(saved.rglob("*")) == before


def test_another_config_is_refused_with_the_fields(saved):
    other = {"seed": 1, "part": {"rate": 0.1}, "more": 2}
    with pytest.raises(CheckpointError) as error:
        restore(saved, other)
    assert "seed: 0 there, 1 now" in str(error.value)
    assert "more: 'absent' there, 2 now" in str(error.value)
    assert "rate" not in str(error.value).replace(str(saved), "")


def test_another_program_is_refused_and_not_cast(saved):
    like = run_at(0)
    learner = like.learner._replace(half=like.learner.half.astype(jnp.float32))
    with pytest.raises(CheckpointError, match=r"learner.half: .*bfloat16.*float32"):
        restore(saved, like=like._replace(learner=learner))


@pytest.mark.parametrize("content", ["file", "folder", "numbers"])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path, content):
    directory = tmp_path / "data"
    directory.mkdir()
    if content == "file":
        (directory / "thesis.tex").write_text("mine")
    else:
        (directory / ("1" if content == "numbers" else "src")).mkdir()
        (directory / "3.orbax-checkpoint-tmp").mkdir()
    before = sorted(directory.rglob("*"))
    with pytest.raises(CheckpointError, match="not a folder of checkpoints"):
        Checkpoints(directory, CONFIG)
    assert sorted(directory.rglob("*")) == before


def test_leftovers_of_a_killed_save_are_removed(saved):
    (saved / "3.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    assert state_hash(restore(saved)) == state_hash(run_at(2))
    assert not (saved / "3.orbax-checkpoint-tmp").exists()


def test_a_limit_of_file_sizes_is_one_clear_error(saved):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(saved, CONFIG) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(DiskFullError) as error:
                store.save(3, run_at(3))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert str(saved / "3") in str(error.value)
        assert "MB" in str(error.value)
        assert not list(saved.glob("*tmp*"))
        assert store.steps == [1, 2]
        store.save(3, run_at(3))
    assert state_hash(restore(saved)) == state_hash(run_at(3))


def test_what_a_failed_save_left_is_removed_though_its_writers_go_on(
    tmp_path, monkeypatch
):
    late = tmp_path / "3.orbax-checkpoint-tmp" / "d"
    late.mkdir(parents=True)
    rmtree, calls = shutil.rmtree, []

    def beside_a_writer(path, **options):
        rmtree(path)
        calls.append(path)
        if len(calls) < 3:
            late.mkdir(parents=True)

    monkeypatch.setattr(shutil, "rmtree", beside_a_writer)
    remove_unfinished(tmp_path)
    assert len(calls) == 3 and not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_last_good_step(disk):
    disk.limit(64)
    directory = disk.path / "checkpoints"
    with Checkpoints(directory, CONFIG, keep=2) as store:
        store.save(1, run_at(1))
        with pytest.raises(DiskFullError, match="no room to write"):
            for step in range(2, 10):
                # It may itself be what fills the disk.
                with suppress(OSError):
                    (disk.path / f"ballast-{step}").write_bytes(bytes(40_000))
                store.save(step, run_at(step))
        newest = store.steps[-1]
    for path in disk.path.glob("ballast*"):
        path.unlink()
    assert state_hash(restore(directory)) == state_hash(run_at(newest))


@pytest.mark.parametrize("told", ["Event loop is closed", "something else"])
def test_what_orbax_still_does_when_a_save_has_failed_is_not_told(
    told, tmp_path, monkeypatch
):
    """A part that comes late; but what it does not know is told as before."""

    class Late:
        def __del__(self):
            raise RuntimeError(told)

    def failed(*args, **options):
        held = [Late()]
        threading.Timer(0.05, held.clear).start()
        raise OSError(28, "No space left on device")

    heard = []
    monkeypatch.setattr(sys, "unraisablehook", lambda x: heard.append(x.exc_value))
    with Checkpoints(tmp_path / "checkpoints", CONFIG) as store:
        monkeypatch.setattr(store._steps._manager, "save", failed)
        with pytest.raises(DiskFullError):
            store.save(1, run_at(1))
    assert [str(x) for x in heard] == ["something else"] * (told == "something else")


def test_a_run_moves_to_other_devices(saved):
    for count in (1, 2, 4):
        mesh = Mesh(jax.devices()[:count], ("data",), axis_types=(AxisType.Auto,))
        like = run_at(0)
        split, same = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
        like = like._replace(
            learner=jax.device_put(like.learner, same),
            local=jax.device_put(like.local, split),
        )
        run = restore(saved, like=like)
        assert run.local["keys"].sharding == split
        assert run.learner.params["w"].sharding == same
        assert state_hash(run) == state_hash(run_at(2))


@pytest.mark.slow
def test_a_kill_during_a_save_leaves_a_whole_step(tmp_path):
    code = f"""
import os, pathlib, signal, sys, threading
from toy_training import toy
from jaxrl_par import random
from jaxrl_par.training.checkpoints import Checkpoints
run = toy().init(random.key(0))
store = Checkpoints(pathlib.Path({str(tmp_path / "c")!r}), {CONFIG!r})
store.save(0, run)
seconds = float(sys.argv[1])
threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
for step in range(1, 1000):
    store.save(step, run)
"""
    env = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    for seconds in np.linspace(0.05, 0.5, 3):
        done = subprocess.run(
            [sys.executable, "-c", code, str(seconds)],
            env=env,
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == -9, done.stderr
        with Checkpoints(tmp_path / "c", CONFIG) as store:
            assert store.steps
            assert state_hash(store.restore(run_at(0))) == state_hash(run_at(0))
        shutil.rmtree(tmp_path / "c")
