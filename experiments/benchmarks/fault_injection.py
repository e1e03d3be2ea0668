"""Breaks threaded training in random ways, and checks that each ends as it should.

A trial draws a fault, a schedule, a policy, the number of actors, and where in the
stream of which actor it strikes. Faults of simulators strike engines in this process,
under a watchdog; SIGTERM strikes `impala_threads.py` in a process of its own, which is
then resumed. Prints a table; exits with 1 unless every end was clear.
"""

import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.bridge.supervision import HangError, SupervisionConfig
from jaxrl_par.cli import parse
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.envs.host.admission import BadRowError
from jaxrl_par.errors import at_least
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, threads
from jaxrl_par.types import Agent, Box, Discrete, Info, TimeStep

FAULTS = ("raise", "hang", "nan", "slow actor", "slow learner", "stop")
SCHEDULES = {
    "free": {"schedule": "free"},
    "free, max_lag 1": {"schedule": "free", "max_lag": 1},
    "lockstep 0": {"schedule": "lockstep", "lag": 0},
    "lockstep 1": {"schedule": "lockstep", "lag": 1},
}
NUM_ENVS, LENGTH, EPISODE = 2, 4, 7
UPDATES_AFTER = 5
"""Updates that a run which goes on must still make."""


@dataclass(frozen=True)
class Args:
    """How many faults, and what counts as a hang."""

    num_faults: int = 20
    seed: int = 0
    """Seed of all that is drawn."""
    timeout: float = 120.0
    """Seconds after which a trial, or a process, is taken to hang."""
    env_timeout: float = 1.0
    """Seconds after which the engine is to notice that an environment hangs."""
    output: Path | None = None
    """JSON with every trial."""

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, num_faults=1)


@dataclass(frozen=True)
class Trial:
    """What strikes what, and where."""

    fault: str
    how: str
    """The call that fails, the kind of a bad row, or what stops."""
    schedule: str
    on_error: str
    num_actors: int
    actor: int
    step: int

    @property
    def expected(self) -> str:
        """The end that is clear for this fault."""
        if self.fault == "stop":
            return {"close": "stopped", "SIGTERM": "saved, exit 75, resumed"}[self.how]
        if self.fault.startswith("slow"):
            return "goes on"
        if self.how in ("make", "reset") or self.on_error == "raise":
            kinds = {"raise": "SimulatorError", "hang": "HangError"}
            return kinds.get(self.fault, "BadRowError")
        return "goes on, 1 restart"


class Result(NamedTuple):
    """A trial and how it ended."""

    trial: Trial
    end: str
    problems: list[str]
    seconds: float


def draw(dice: random.Random) -> Trial:
    """A trial."""
    fault = dice.choice(FAULTS)
    hows = {
        "raise": ("step", "step", "make", "reset"),
        "hang": ("step", "step", "make", "reset"),
        "nan": tuple(BAD),
        "stop": ("close", "SIGTERM"),
    }
    how = dice.choice(hows.get(fault, ("step",)))
    num_actors = dice.randint(1, 3)
    return Trial(
        fault,
        how,
        dice.choice(list(SCHEDULES)),
        dice.choice(("raise", "restart")),
        num_actors,
        dice.randrange(num_actors),
        0 if how in ("make", "reset") else dice.randrange(40),
    )


# Faults of simulators -------------------------------------------------------------


class SimulatorError(Exception):
    """What a simulator raises."""


BAD: dict[str, Any] = {
    "nan": lambda obs, reward: obs.fill(np.nan),
    "infinity": lambda obs, reward: obs.fill(np.inf),
    "out of range": lambda obs, reward: obs.fill(1e6),
    "reward nan": lambda obs, reward: reward.fill(np.nan),
    "reward infinity": lambda obs, reward: reward.fill(-np.inf),
    "shape": lambda obs, reward: (obs[:, :1], reward),
    "dtype": lambda obs, reward: (obs.astype(np.float64), reward),
    "reward dtype": lambda obs, reward: (obs, reward.astype(np.int32)),
}
"""What makes a row bad, in place or as another one."""


class World:
    """Makes the environments of a trial, and strikes once."""

    def __init__(self, trial: Trial):
        self.trial = trial
        self.struck = False
        self.released = threading.Event()
        self.envs: list[Faulty] = []

    def make(self, key: Any) -> "Faulty":
        """An environment of the actor in whose thread it is made."""
        del key
        number = re.search(r"\d+", threading.current_thread().name)
        assert number
        actor = int(number[0])
        self.call("make", actor, 0)
        self.envs.append(Faulty(self, actor))
        return self.envs[-1]

    def call(self, kind: str, actor: int, step: int) -> bool:
        """Raises, hangs or takes its time; True if the row is to be bad."""
        trial = self.trial
        if trial.fault == "slow actor" and actor == trial.actor and kind == "step":
            self.struck = True
            time.sleep(0.02)
        bad = trial.fault == "nan"
        here = (kind, actor) == ("step" if bad else trial.how, trial.actor)
        if self.struck or not here or step != trial.step:
            return False
        if trial.fault in ("raise", "hang", "nan"):
            self.struck = True
        if trial.fault == "raise":
            raise SimulatorError("out of fuel")
        if trial.fault == "hang":
            self.released.wait()
        return bad


class Faulty(HostEnvironment):
    """Observations count the steps of an episode."""

    num_envs = NUM_ENVS
    observation_spec = Box((2,), low=0.0, high=float(EPISODE))
    action_spec = Discrete(2)
    name = "Faulty"
    max_episode_steps = EPISODE

    def __init__(self, world: World, actor: int):
        self.actor = actor
        self.steps = self._at = 0
        self.closed = False
        self._world = world

    def reset(self) -> TimeStep:
        """The start of an episode."""
        self._world.call("reset", self.actor, 0)
        return self._show()

    def step(self, action: Any):
        """The next row."""
        bad = self._world.call("step", self.actor, self.steps)
        was_last = self._at == EPISODE
        self._at = 0 if was_last else self._at + 1
        shown = self._show()
        reward = np.full(NUM_ENVS, 0 if was_last else 1, np.float32)
        ends = was_last or self._at == EPISODE
        discount = np.full(NUM_ENVS, 0 if ends else 1, np.float32)
        obs = shown.obs
        if bad:
            how = BAD[self._world.trial.how]
            obs, reward = how(obs, reward) or (obs, reward)
        self.steps += 1
        return shown._replace(obs=obs), reward, discount

    def close(self) -> None:
        """Is remembered."""
        self.closed = True

    def _show(self) -> TimeStep:
        first: Any = np.full(NUM_ENVS, self._at == 0)
        last: Any = np.full(NUM_ENVS, self._at == EPISODE)
        return TimeStep(np.full((NUM_ENVS, 2), self._at, np.float32), first, last)


class Sum(NamedTuple):
    """The state of an agent that sums rewards."""

    params: jax.Array


def agent() -> Agent:
    """One that is compiled in no time: how it learns is not in question."""

    def act(params, carry, step, key):
        return jax.random.randint(key, step.first.shape, 0, 2), carry, {}

    return Agent(
        init=lambda key, step: Sum(jnp.zeros(())),
        initial_carry=lambda num_envs: (),
        act=act,
        greedy=act,
        grad=lambda state, batch, key, axis: (jnp.mean(batch.reward), Info({})),
        apply=lambda state, grads, metrics: Sum(state.params + grads),
    )


def strike(trial: Trial, args: Args) -> tuple[str, list[str]]:
    """How an engine ended, and what was wrong with it."""
    world, before = World(trial), set(threading.enumerate())
    options: dict[str, Any] = SCHEDULES[trial.schedule]
    config = ThreadsConfig(
        num_actors=trial.num_actors,
        supervision=SupervisionConfig(
            on_error=trial.on_error,  # pyright: ignore
            env_timeout=args.env_timeout if trial.fault == "hang" else args.timeout,
            patience=args.timeout / 2,
        ),
        **options,
    )
    engine = threads(agent(), world.make, LENGTH, config, data_mesh(1))
    error = None
    try:
        play(engine, world)
    except Exception as raised:
        error = raised
    started = time.monotonic()
    engine.close()
    engine.close()
    seconds = time.monotonic() - started
    report = engine.report()
    end = type(error).__name__ if error else "goes on"
    if error is None and trial.fault == "stop":
        end = "stopped"
    elif error is None and report and report.restarts:
        end += f", {report.restarts} restart"
    problems = unclear(error, trial) if error else []
    if seconds > 10:  # 5, on a machine that does nothing else
        problems.append(f"close took {seconds:.1f} s")
    left = [x.name for x in set(threading.enumerate()) - before]
    if left != (report.abandoned if report else left):
        problems.append(f"threads left: {left}")
    world.released.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(args.timeout / 4)
    problems += [f"thread left: {x.name}" for x in set(threading.enumerate()) - before]
    problems += ["an environment was not closed" for x in world.envs if not x.closed]
    if report:
        rows = sum(env.steps for env in world.envs) * NUM_ENVS
        lost = rows - sum(report.lags.values()) - report.dropped_rows
        # The step in progress of each may come back after the end.
        if not 0 <= lost <= len(world.envs) * NUM_ENVS:
            problems.append(f"{lost} rows are neither learned from nor dropped")
        problems += too_old(report.lags, config)
    return end, problems


def play(engine: Any, world: World) -> None:
    """Trains until the fault has struck, and a little longer."""
    trial = world.trial
    run = engine.init(jax.random.key(0))
    after = updates = 0
    while after < UPDATES_AFTER:
        run, _ = engine.advance(run, 1 + updates % 3)
        updates += 1
        if trial.fault == "slow learner":
            time.sleep(0.05)
        if trial.fault == "stop" and updates > trial.step % 10:
            return
        # Of a hang nothing is seen before its time-out, while other actors go on.
        here = world.struck or trial.fault == "slow learner"
        hangs = trial.fault == "hang" and not engine.report().restarts
        after += here and not hangs


def unclear(error: BaseException, trial: Trial) -> list[str]:
    """What an error does not say."""
    notes = "\n".join(getattr(error, "__notes__", []))
    problems = []
    if f"actor {trial.actor}, " not in notes:
        problems.append(f"no actor in {notes!r}")
    if trial.how != "make" and ", Faulty, " not in notes:
        problems.append(f"no environment in {notes!r}")
    step = re.search(r"step (\d+)", notes)
    # What a step shows is the next row.
    if not step or int(step[1]) - trial.step not in (0, int(trial.fault == "nan")):
        problems.append(f"not step {trial.step} in {notes!r}")
    if isinstance(error, BadRowError) and trial.how.split()[0] == "reward":
        problems += [] if "reward" in str(error) else [f"no field in {error}"]
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SimulatorError) and names[-1] != "call":
        problems.append(f"the traceback ends in {names[-1]}")
    if isinstance(error, HangError) and "has not returned" not in str(error):
        problems.append(f"no hang in {error}")
    return problems


def too_old(lags: dict[int, int], config: ThreadsConfig) -> list[str]:
    """Whether rows were older than the schedule allows."""
    limit = config.lag if config.schedule == "lockstep" else config.max_lag
    if limit is None or max(lags, default=0) <= limit:
        return []
    return [f"rows of lag {max(lags)}, at most {limit} was allowed"]


# SIGTERM --------------------------------------------------------------------------

SCRIPT = Path(__file__).parent.parent / "impala_threads.py"
RUN = [
    *("--env-name", "CartPole-v1", "--backend", "gymnasium", "--num-envs", "6"),
    *("--unroll-length", "8", "--total-steps", "24000", "--log-interval", "5"),
    *("--evaluation-envs", "1", "--evaluation-episodes", "1", "--no-gif"),
    *("--no-tensorboard", "--network.widths", "8"),
    *("--num-epochs", "1", "--num-minibatches", "1"),
]


class Runs:
    """A folder of runs, and the ends of those that nobody disturbed."""

    def __init__(self, folder: Path, args: Args):
        self.folder = folder
        self.timeout = args.timeout
        self._undisturbed: dict[tuple[str, int], dict[str, Any]] = {}

    def undisturbed(self, trial: Trial) -> dict[str, Any]:
        """The summary of such a run."""
        key = trial.schedule, trial.num_actors
        if key not in self._undisturbed:
            name = f"whole-{len(self._undisturbed)}"
            code, out = self.finish(self.start(name, trial))
            if code:
                raise RuntimeError(out)
            self._undisturbed[key] = self.summary(name)
        return self._undisturbed[key]

    def start(self, name: str, trial: Trial, *more: str) -> subprocess.Popen:
        """A process that trains."""
        options = {"num_actors": trial.num_actors, **SCHEDULES[trial.schedule]}
        config = [
            word
            for option, value in options.items()
            for word in (f"--threads.{option.replace('_', '-')}", str(value))
        ]
        where = ["--runs-dir", str(self.folder), "--name", name]
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), *RUN, *config, *where, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, process: subprocess.Popen) -> tuple[int, str]:
        """Exit code and output, once it ended."""
        try:
            out, _ = process.communicate(timeout=self.timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
            return -1, f"did not end: {out}"
        return process.returncode, out

    def summary(self, name: str) -> dict[str, Any]:
        """What a finished run left."""
        return json.loads((self.folder / name / "summary.json").read_text())

    def rows(self, name: str) -> list[int]:
        """Updates that were logged."""
        path = self.folder / name / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line)["updates"] for line in lines]


def terminate(
    trial: Trial, runs: Runs, name: str, dice: random.Random
) -> tuple[str, list[str]]:
    """How a process ended that got SIGTERM, and what was wrong with that."""
    whole = runs.undisturbed(trial)
    process = runs.start(name, trial)
    deadline = time.monotonic() + runs.timeout
    # Then signals are caught.
    while not (runs.folder / name / "metrics.jsonl").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            return "did not start", [runs.finish(process)[1]]
        time.sleep(0.01)
    time.sleep(dice.uniform(0, whole["seconds"]))
    process.send_signal(signal.SIGTERM)
    code, out = runs.finish(process)
    finished = (runs.folder / name / "summary.json").exists()
    # Once all is written, signals do again what they do to any process.
    if finished and code in (0, -signal.SIGTERM):
        same = runs.summary(name)["updates"] == whole["updates"]
        return "ended before", [] if same else [out]
    problems = []
    stopped = re.search(r"stopped at update ([\d,]+)\.", out)
    saved = int(stopped[1].replace(",", "")) if stopped else -1
    if code != 75 or not (runs.folder / name / "checkpoints" / str(saved)).is_dir():
        return f"exit {code}", [out]
    if trial.schedule.startswith("free") and "were dropped" not in out:
        problems.append("it does not say what was dropped")
    committed = runs.rows(name)
    if committed[-1:] != [saved]:
        problems.append(f"saved at {saved}, but logged {committed[-1:]}")
    code, out = runs.finish(runs.start(name, trial, "--resume"))
    if code or f"resuming at update {saved:,}" not in out:
        return f"resumed with exit {code}", [out]
    if runs.rows(name)[: len(committed)] != committed:
        problems.append("updates that were logged are lost")
    summary = runs.summary(name)
    same = ["updates"]
    if trial.schedule.startswith("lockstep"):
        same.append("state_sha256")
    problems += [
        f"{x}: {summary[x]}, {whole[x]} if nobody disturbs it"
        for x in same
        if summary[x] != whole[x]
    ]
    return trial.expected, problems


# All ------------------------------------------------------------------------------


def watched(work: Any, timeout: float) -> tuple[str, list[str]]:
    """The end of `work`, also if it has none."""
    ends = []

    def body() -> None:
        try:
            ends.append(work())
        except Exception:
            ends.append(("failed", [traceback.format_exc()]))

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(timeout)
    return ends[0] if ends else ("hangs", [f"did not end in {timeout:g} s"])


def run(args: Args) -> list[Result]:
    """All trials, one after the other."""
    dice, results = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of restarts
        runs = Runs(Path(folder), args)
        for number in range(args.num_faults):
            trial = draw(dice)
            started = time.monotonic()
            if trial.how == "SIGTERM":
                end, problems = terminate(trial, runs, f"run-{number}", dice)
            else:
                end, problems = watched(
                    lambda trial=trial: strike(trial, args), args.timeout
                )
            if end not in (trial.expected, "ended before"):
                problems = [f"{trial.expected} was expected", *problems]
            seconds = time.monotonic() - started
            results.append(Result(trial, end, problems, seconds))
            print(f"{number + 1}: {trial}: {end} {problems or ''}", file=sys.stderr)
    return results


def table(results: Sequence[Any]) -> str:
    """Faults by their ends. Results are as `Result`."""
    lines = [f"{'fault':<14}{'end':<28}{'number':>7}{'clear':>7}{'slowest':>10}"]
    for fault, end in sorted(Counter((x.trial.fault, x.end) for x in results)):
        some = [x for x in results if (x.trial.fault, x.end) == (fault, end)]
        clear = sum(not x.problems for x in some)
        slowest = max(x.seconds for x in some)
        lines.append(f"{fault:<14}{end:<28}{len(some):>7}{clear:>7}{slowest:>8.1f} s")
    clear = sum(not x.problems for x in results)
    return "\n".join([*lines, f"{clear} clear ends of {len(results)} faults"])


def main() -> None:
    """Prints and writes the results."""
    args = parse(Args)
    results = run(args)
    print(table(results))
    if args.output:
        rows = [x._asdict() | {"trial": asdict(x.trial)} for x in results]
        clear = sum(not x.problems for x in results)
        content = {"faults": len(results), "clear": clear, "trials": rows}
        args.output.write_text(json.dumps(content, indent=2) + "\n")
    raise SystemExit(any(x.problems for x in results))


if __name__ == "__main__":
    main()
