"""Pages of runs: all that is there is shown, the rest is named, and no network."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_par import presets
from jaxrl_par.training import TrainingConfig, TrainingError, compare
from jaxrl_par.training.pages import write_comparison, write_report
from jaxrl_par.training.pages.svg import Curve, chart, labels, thinned, ticks

NUMBERS = st.floats(-1e12, 1e12)
ROWS = [
    {"updates": i, "env_steps": 10 * i, "episode_return": x, "kl": 0.1 * i}
    for i, x in enumerate([1.0, None, 3.0, 2.0], start=1)
]
CONFIG = {"env_name": "<b>Cart</b>", "seed": 1, "ppo": {"clip": 0.2}}
CONFIG |= {"provenance": {"experiment": "ppo", "versions": {"jax": "0.10.2"}}}


def run_folder(path, rows=ROWS, **changed):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG | changed))
    (path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))
    (path / "checkpoints" / "4").mkdir(parents=True)
    return path


def test_a_page_shows_curves_settings_and_where_it_comes_from(tmp_path):
    folder = run_folder(tmp_path / "mine")
    (folder / "summary.json").write_text(json.dumps({"updates": 12345}))
    (folder / "episode.gif").write_bytes(b"GIF89a")
    page = write_report(folder, {"env_name": "CartPole-v1", "ppo": {"clip": 0.3}})
    text = page.read_text()
    assert page == folder / "report.html"
    for told in ("12,345", "0.10.2", "episode return", "kl", "checkpoints/4/"):
        assert told in text
    assert text.count("<svg") == 2
    changed = text.partition("What differs")[2].partition("<h2>")[0]
    assert "<th>ppo.clip</th><td>0.3</td><td>0.2</td>" in changed
    assert "data:image/gif;base64,R0lGODlh" in text


def test_nothing_of_a_run_is_taken_for_html_and_nothing_is_far_away(tmp_path):
    text = write_report(run_folder(tmp_path / "<i>run")).read_text()
    assert "<b>Cart" not in text and "&lt;b&gt;Cart" in text
    assert "<i>run" not in text
    assert not re.search(r"(src|href)=.?(https?:)?//|@import|url\(|<script", text)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("summary.json", "[]"),
        ("metrics.jsonl", '{"updates": 1, "env_steps"\n{}\n'),
        ("metrics.jsonl", "\udc80\n{}\n"),
    ],
)
def test_what_is_damaged_is_named_and_the_rest_is_shown(tmp_path, name, content):
    folder = run_folder(tmp_path / "mine")
    (folder / "summary.json").write_text("{}")
    (folder / name).write_bytes(content.encode(errors="surrogateescape"))
    text = write_report(folder).read_text()
    notes = re.findall(r'class="note">(.*?)</p>', text)
    assert notes and all(name in note for note in notes)
    assert ("<svg" in text) == (name != "metrics.jsonl")
    assert ("0.10.2" in text) == (name != "config.json")


def test_a_run_that_goes_on_has_a_page(tmp_path):
    folder = run_folder(tmp_path / "mine", rows=[])
    text = write_report(folder).read_text()
    assert "summary.json" in text and "<svg" not in text


def test_folders_of_no_run_are_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"neither config\.json nor metrics\.jsonl"):
        write_report(tmp_path)
    with pytest.raises(TrainingError, match="is no folder"):
        write_report(tmp_path / "there")


def test_a_large_film_is_a_link(tmp_path):
    folder = run_folder(tmp_path / "mine")
    (folder / "episode.gif").write_bytes(bytes(2_000_000))
    text = write_report(folder).read_text()
    assert 'href="episode.gif"' in text and len(text) < 100_000


def test_a_population_is_its_mean_and_its_range(tmp_path):
    rows = [x | {"episode_return": [1.0, 3.0, None]} for x in ROWS]
    text = write_report(run_folder(tmp_path / "mine", rows)).read_text()
    assert text.count("<polygon") == 1


def test_runs_side_by_side_have_a_page(tmp_path):
    for seed in (1, 2):
        run_folder(tmp_path / f"a{seed}", seed=seed)
    run_folder(tmp_path / "b", ppo={"clip": 0.1})
    page = tmp_path / "page.html"
    write_comparison(compare([tmp_path]), page)
    text = page.read_text()
    assert text.count("<polyline") == 2 and text.count("<polygon") == 1
    assert "<th>ppo.clip</th><td>0.2</td><td>0.1</td>" in text
    assert "is not finished" in text


def test_where_it_cannot_be_written_is_said_once(tmp_path):
    comparison = compare([run_folder(tmp_path / "a")])
    with pytest.raises(TrainingError) as told:
        write_comparison(comparison, tmp_path / "nowhere" / "page.html")
    assert str(told.value).count("cannot be written") == 1


def test_a_curve_keeps_its_ends_and_its_finite_points():
    steps = np.arange(10_000.0)
    curve = thinned(Curve("x", steps, np.where(steps % 2, np.nan, steps)))
    assert len(curve.steps) == 400 and np.isfinite(curve.values).all()
    assert (curve.steps[0], curve.steps[-1]) == (0, 9998)


@given(NUMBERS, st.floats(1e-6, 1e12))
def test_ticks_are_few_and_within(low, size):
    high = low + size
    if high - low < 1e-6 * max(abs(low), abs(high)):
        return
    found = ticks(low, high)
    margin = 1e-6 * (high - low)
    assert 2 <= len(found) <= 5
    assert low - margin <= found[0] and found[-1] <= high + margin
    assert len(set(labels(found))) == len(found)


@given(st.lists(st.one_of(NUMBERS, st.just(float("nan"))), max_size=5))
def test_a_chart_has_no_number_that_is_none(values):
    picture = chart("x", [Curve("x", np.arange(float(len(values))), np.array(values))])
    assert "nan" not in picture and "inf" not in picture


def test_places_grow_to_the_right_and_up():
    picture = chart("x", [Curve("x", np.array([0.0, 1.0]), np.array([5.0, 6.0]))])
    (points,) = re.findall(r'line c0" points="([^"]*)"', picture)
    (left, below), (right, above) = (map(float, x.split(",")) for x in points.split())
    assert left < right and above < below


def browsed(page, folder, script, width=1300):
    """What the browser has for a page, to which a script is added."""
    page.write_text(page.read_text().replace("</body>", f"{script}</body>"))
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={folder / 'browser'}", f"--window-size={width},800",
         page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser")
@pytest.mark.parametrize("width", [1300, 400])
def test_a_browser_shows_it_without_scrolling_aside(tmp_path, width):
    page = write_report(run_folder(tmp_path / "mine", wide="x" * 500))
    told = "<script>document.title = document.documentElement.scrollWidth</script>"
    shown = browsed(page, tmp_path, told, width)
    (title,) = re.findall("<title>(.*?)</title>", shown)
    # Headless windows are no narrower than 500.
    assert int(title) <= max(width, 500)
    assert shown.count("<polyline") == 2


LOADED = """<script>
addEventListener("load", () => setTimeout(() => {
    const [row] = performance.getEntriesByType("navigation");
    const whole = [...document.images].filter(x => x.complete && x.naturalWidth);
    document.title = `${whole.length} of ${document.images.length} pictures,`
        + ` ${performance.getEntriesByType("resource").length} from elsewhere,`
        + ` in ${Math.round(row.loadEventEnd)} ms`;
}));
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser")
def test_the_page_of_a_real_run_is_small_and_whole(tmp_path):
    """`pytest -s` shows how long the browser took: no test asserts that."""
    experiment = presets.get("a2c")
    settings = TrainingConfig(runs_dir=str(tmp_path), name="run", tensorboard=False)
    trained = experiment.run(experiment.config(total_steps=500_000, training=settings))
    page = trained.directory.path / "report.html"
    size = page.stat().st_size
    assert (page.parent / "episode.gif").exists() and size < 2_000_000
    shown = browsed(page, tmp_path, LOADED)
    (title,) = re.findall("<title>(.*?)</title>", shown)
    print(f"{size} bytes: {title}")
    assert title.startswith("1 of 1 pictures, 0 from elsewhere")
    assert shown.count("<svg") > 2
