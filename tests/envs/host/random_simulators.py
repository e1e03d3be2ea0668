"""Random simulators, drawn from a seed, and a plain loop over them that needs no
adapter: what must come through, or which field must be refused."""

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from jaxrl_par.envs.host import from_callable, from_vector
from jaxrl_par.envs.host.rows import episode_seed
from jaxrl_par.envs.host.unrolls import UnrollBuffer
from jaxrl_par.envs.host.wrappers import previous_action_and_reward

NAME, LENGTH = "sim", 12
MODES = tuple(AutoresetMode)
ADAPTERS = ("single", *MODES, *(f"sync {mode.name}" for mode in MODES))
"""One by one, a vector environment of its own kind, and Gymnasium's."""


class Fuel(BaseException):
    """Neither an error nor anything that Python knows."""


@dataclass
class Plan:
    """A simulator, how it is adapted, and where it goes wrong, if it does."""

    rng: np.random.Generator
    adapter: Any
    num_envs: int
    lengths: list[int]
    endings: list[str]
    observation: Any
    action: Any
    reuses: bool
    """Whether everything is shown in the same memory, of all environments."""
    benign: bool
    """Whether it comes in other forms that lose nothing."""
    previous: bool
    tells: list[bool]
    """Which environments tell of success."""
    fault: str | None
    call: int
    """The call of `step`, or of `reset`, that goes wrong."""
    calls: dict[str, int] = field(default_factory=lambda: {"step": 0, "reset": 0})
    struck: str | None = None
    """The field that went wrong, if it did."""

    @property
    def is_vector(self) -> bool:
        return self.adapter in MODES


def draw(seed: int) -> Plan:
    """A plan; half of them go wrong."""
    rng = np.random.default_rng(seed)
    num_envs = int(rng.integers(1, 5))
    adapter = ADAPTERS[seed % len(ADAPTERS)]
    faults = [*ANY, *(VECTOR if adapter in MODES else SINGLE)]
    # Each in turn, so that few plans have all of them, and each adapter most.
    fault = faults[seed % len(faults)] if rng.random() < 0.6 else None
    return Plan(
        rng, adapter, num_envs,
        lengths=[int(x) for x in rng.integers(1, 6, num_envs)],
        endings=[str(x) for x in rng.choice(["end", "cut", "both"], num_envs)],
        observation=random_space(rng),
        action=random_action_space(rng),
        reuses=bool(rng.random() < 0.5),
        benign=bool(rng.random() < 0.5),
        previous=bool(rng.random() < 0.25),
        tells=[bool(x) for x in rng.random(num_envs) < 0.5],
        fault=fault,
        call=int(rng.integers(0, 8)),
    )  # fmt: skip


def random_space(rng, depth=0):
    kind = rng.integers(0, 6 if depth == 2 else 8)
    shape = tuple(
        int(x) for x in rng.integers(rng.random() > 0.1, 4, rng.integers(0, 3))
    )
    if kind < 2:
        dtype = (np.float16, np.float32, np.float64)[rng.integers(0, 3)]
        bounds = (-2.0, 3.0) if rng.random() < 0.5 else (-np.inf, np.inf)
        return spaces.Box(*bounds, shape, dtype)
    if kind == 2:
        kinds = (np.uint8, np.int8, np.int32, np.int64, np.uint16)
        dtype = kinds[rng.integers(0, 5)]
        low = -100 if np.iinfo(dtype).min < 0 and rng.random() < 0.5 else 0
        return spaces.Box(low, 100, shape, dtype)
    if kind == 3:
        start = int(rng.integers(-5, 5))
        return spaces.Discrete(int(rng.integers(1, 9)), start=start)
    if kind == 4:
        return spaces.MultiBinary([x + 1 for x in shape] or int(rng.integers(1, 5)))
    if kind == 5:
        return spaces.Box(0, 1, shape, np.bool_)
    parts = [random_space(rng, depth + 1) for _ in range(rng.integers(1, 4))]
    if kind == 6:
        return spaces.Tuple(parts)
    return spaces.Dict({f"part{i}": part for i, part in enumerate(parts)})


def random_action_space(rng):
    if rng.random() < 0.4:
        start = int(rng.integers(-3, 4))
        return spaces.Discrete(int(rng.integers(1, 6)), start=start)
    dtype = (np.float16, np.float32, np.float64)[rng.integers(0, 3)]
    low = np.array([-1.5, -np.inf], dtype)
    return spaces.Box(low, np.array([2.0, 0.25], dtype), dtype=dtype)


# What simulators show --------------------------------------------------------------


def leaf(space, rng):
    """An observation of a space that has no parts, as the space declares it."""
    if isinstance(space, spaces.Discrete):
        return np.array(space.start + rng.integers(0, space.n), np.int64)
    if isinstance(space, spaces.MultiBinary) or space.dtype == np.bool_:
        return rng.integers(0, 2, space.shape).astype(space.dtype)
    if space.dtype.kind == "f":
        return np.array(rng.uniform(-2, 3, space.shape), space.dtype)
    low = int(space.low.min(initial=0))
    return rng.integers(low, 101, space.shape).astype(space.dtype)


def tree(function, space, *others):
    """`function` of each space without parts, and of what is in its place."""
    if isinstance(space, spaces.Dict):
        return {k: tree(function, space[k], *(x[k] for x in others)) for k in space}
    if isinstance(space, spaces.Tuple):
        return tuple(
            tree(function, *parts) for parts in zip(space, *others, strict=True)
        )
    return function(space, *others)


def content(plan, number, time, action):
    """(observation, reward), the same wherever they are asked for."""
    seed = [number, time, zlib.crc32(np.asarray(action).tobytes())]
    rng = np.random.default_rng(seed)
    obs = tree(lambda space: leaf(space, rng), plan.observation)
    return obs, float(rng.normal())


def ends(plan, i, time):
    """(terminated, truncated) of environment i."""
    over, ending = time == plan.lengths[i], plan.endings[i]
    return over and ending != "cut", over and ending != "end"


def succeeds(plan, i):
    return plan.lengths[i] % 2 == 1


def received(plan, action):
    """What the simulator must get of an action."""
    if isinstance(plan.action, spaces.Discrete):
        return action.astype(np.int64) + plan.action.start
    wide = [np.asarray(x, np.float64) for x in (plan.action.low, plan.action.high)]
    return np.clip(action.astype(np.float64), *wide).astype(plan.action.dtype)


def expected(plan, actions, seed):
    """(obs, first, last, reward, discount) of the stream, by a plain loop."""
    streams = []
    for i in range(plan.num_envs):
        episode = time = 0
        rows = []

        def number(i=i):
            if plan.is_vector:
                return i
            alone = plan.adapter == "single"
            return episode_seed(seed, i, episode * alone)  # noqa: B023

        obs, last = content(plan, number(), 0, 0)[0], False
        rows.append((obs, True, False, None, None))
        for t in range(len(actions)):
            if last:
                episode, time, last = episode + 1, 0, False
                obs = content(plan, number(), 0, 0)[0]
                rows.append((obs, True, False, 0.0, 0.0))
                continue
            time += 1
            done = received(plan, actions[t, i])
            obs, reward = content(plan, number(), time, done)
            terminated, truncated = ends(plan, i, time)
            last = terminated or truncated
            discount = 0.0 if terminated else 1.0
            rows.append((obs, False, last, np.float32(reward), discount))
        streams.append(rows)
    return streams


# Simulators ------------------------------------------------------------------------


class Single:
    """One environment, with Gymnasium's single interface."""

    spec = render_mode = None

    def __init__(self, plan, buffers, i):
        self.metadata = {}
        self.plan, self.buffers, self.i = plan, buffers, i
        self.observation_space, self.action_space = plan.observation, plan.action
        self.seed = self.time = None

    def reset(self, *, seed=None, options=None):
        # Vector environments reset by themselves without a seed.
        if self.seed is None or self.plan.adapter == "single":
            self.seed = seed
        self.time = 0
        obs, _ = content(self.plan, self.seed, 0, 0)
        return struck(self.plan, "reset", (show(self.plan, obs, self.buffers), {}))

    def step(self, action):
        assert self.time < self.plan.lengths[self.i], "stepped after the end"
        assert action.dtype == (self.action_space.dtype or np.int64)
        assert self.action_space.contains(action), action
        self.time += 1
        obs, reward = content(self.plan, self.seed, self.time, action)
        if action.ndim:
            action[...] = 99  # it is the simulator's own
        flags = ends(self.plan, self.i, self.time)
        if self.plan.benign:
            form = int(self.plan.rng.integers(0, 3))
            reward = (np.float64, np.float32, np.array)[form](reward)
            flags = tuple((bool, np.bool_, np.array)[form](x) for x in flags)
        told = self.plan.tells[self.i] and self.time == self.plan.lengths[self.i]
        info = {"is_success": np.bool_(succeeds(self.plan, self.i))} if told else {}
        results = (show(self.plan, obs, self.buffers), reward, *flags, info)
        return struck(self.plan, "step", results)

    def close(self):
        pass


class Vector(VectorEnv):
    """All environments in one, in any autoreset mode."""

    def __init__(self, plan):
        self.plan, self.num_envs = plan, plan.num_envs
        self.metadata = {"autoreset_mode": plan.adapter}
        self.single_observation_space = plan.observation
        self.single_action_space = plan.action
        self.time, self.over = np.zeros((2, self.num_envs), int)
        self.shown = [None] * self.num_envs
        self.buffers, self.flags = None, np.zeros((2, self.num_envs), bool)
        self.rewards = np.zeros(self.num_envs)

    def reset(self, *, seed=None, options=None):
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        for i in np.flatnonzero(mask):
            self._start(i)
        if self.plan.reuses:
            self.flags[:], self.rewards[:] = True, 77.0
        kept = list(self.shown)
        for i in np.flatnonzero(self.over):
            # It has ended and is not reset: nobody asks what it shows now.
            self.shown[i] = content(self.plan, i, 0, 0)[0]
        batch, self.shown = self._batch(), kept
        return struck(self.plan, "reset", (batch, {}))

    def step(self, actions):
        infos, final = {}, [None] * self.num_envs
        ended = np.zeros(self.num_envs, bool)
        if not self.plan.reuses:
            self.flags, self.rewards = self.flags.copy(), self.rewards.copy()
        for i in range(self.num_envs):
            if self.over[i]:
                assert self.plan.adapter is AutoresetMode.NEXT_STEP
                self._start(i)
                self.flags[:, i], self.rewards[i] = False, 7.0
                continue
            self.time[i] += 1
            assert self.single_action_space.contains(actions[i]), actions[i]
            obs, reward = content(self.plan, i, self.time[i], actions[i])
            self.shown[i], self.rewards[i] = obs, reward
            self.flags[:, i] = ends(self.plan, i, self.time[i])
            self.over[i] = ended[i] = self.flags[:, i].any()
            if self.over[i] and self.plan.adapter is AutoresetMode.SAME_STEP:
                final[i] = obs
                infos["final_obs"] = np.empty(self.num_envs, object)
                self._start(i)
        for i in range(self.num_envs * ("final_obs" in infos)):
            infos["final_obs"][i] = final[i]
        if actions.ndim > 1:
            actions[...] = 99
        if ended.any():
            success = np.array([succeeds(self.plan, i) for i in range(self.num_envs)])
            gives = ended & self.plan.tells
            told = {"success": np.where(gives, success, 9), "_success": gives}
            same = self.plan.adapter is AutoresetMode.SAME_STEP
            infos |= {"final_info": told} if same else told
        results = (self._batch(), self.rewards, *self.flags, infos)
        return struck(self.plan, "step", results)

    def _start(self, i):
        self.time[i] = self.over[i] = 0
        self.shown[i] = content(self.plan, i, 0, 0)[0]

    def _batch(self):
        space = self.plan.observation
        batch = tree(lambda _, *xs: np.stack(xs), space, *self.shown)
        if self.buffers is None:
            self.buffers = tree(lambda _, x: np.empty_like(x), space, batch)
        return show(self.plan, batch, self.buffers)


def show(plan, obs, buffers):
    """The observation, in memory of its own or in that of all, in one form or other."""

    def one(space, x, buffer):
        if plan.reuses:
            buffer[...] = x
            return buffer
        form = int(plan.rng.integers(0, 6)) * plan.benign
        narrow = x.dtype.kind == "i" and x.dtype != np.int8
        if form == 1 and x.dtype.kind in "iu" and space.dtype.kind in "iu":
            return x.astype(np.int64)
        if form == 2 and narrow:
            return x.astype(np.int8)
        if form == 3 and x.dtype == np.float32:
            return x.astype(np.float64)
        if form == 4:
            return x.astype(x.dtype.newbyteorder())
        if form == 5:
            return np.stack([x, x, x], -1)[..., 1]
        return x.tolist() if form == 2 and x.size and x.dtype != np.float16 else x

    return tree(one, plan.observation, obs, buffers)


# What goes wrong -------------------------------------------------------------------


def struck(plan, method, results):
    """The results, or what the plan makes of them."""
    call = plan.calls[method]
    plan.calls[method] += 1
    where = (plan.fault or "").partition(": ")[0]
    if not plan.fault or call != plan.call % (3 if method == "reset" else 99):
        return results
    if plan.struck or where not in ("both", method):
        return results
    changed, name = (ANY | SINGLE | VECTOR)[plan.fault](plan, results)
    plan.struck = name
    return changed


def part(change):
    """A fault of one leaf of the observation; `change(space, x)` is None if it has no
    such fault."""

    def fault(plan, results):
        spots = []
        tree(lambda space, x: spots.append((space, x)), plan.observation, results[0])
        broken = [change(space, np.asarray(x)) for space, x in spots]
        able = [i for i, x in enumerate(broken) if x is not None]
        if not able:
            return results, None
        chosen, count = int(plan.rng.choice(able)), iter(range(len(spots)))

        def one(space, x):
            i = next(count)
            return broken[i] if i == chosen else x

        obs = tree(one, plan.observation, results[0])
        return (obs, *results[1:]), "observation"

    return fault


def put(x, value, dtype):
    if not x.size:
        return None
    x = x.astype(dtype)
    x.flat[-1] = value
    return x


def out_of_range(space, x):
    if isinstance(space, spaces.Discrete):
        return put(x, space.start + space.n, np.int64)
    if space.dtype.kind in "iu":
        return put(x, np.iinfo(space.dtype).max + 1, np.uint64)
    return None


def wraps(space, x):
    """What 32 bits would take for a value of the space."""
    wide = x.dtype == np.int64
    return put(x, 2**32 + int(x.flat[-1]), x.dtype) if wide and x.size else None


def below(space, x):
    if isinstance(space, spaces.Discrete):
        return put(x, space.start - 1, np.int64)
    return put(x, -1, np.int64) if space.dtype.kind == "u" else None


def infinite(space, x):
    return put(x, np.nan, x.dtype) if space.dtype.kind == "f" else None


def lossy(space, x):
    if space.dtype in (np.float16, np.float32):
        return put(x, 0.1, np.float64)
    return put(x, 2.5, np.float64) if space.dtype.kind in "iu" else None


def wrong_bounds(space, x):
    if space.dtype.kind in "iu" and not isinstance(space, spaces.Discrete):
        return put(x, 2 if isinstance(space, spaces.MultiBinary) else 101, x.dtype)
    if space.dtype.kind == "f" and np.isfinite(space.high).all():
        return put(x, 4.0, x.dtype)
    return None


def reward(value):
    return lambda plan, results: ((results[0], value, *results[2:]), "reward")


def flag(index, value):
    def fault(plan, results):
        name = ("terminated", "truncated")[index - 2]
        return (*results[:index], value, *results[index + 1 :]), name

    return fault


def raising(error):
    def fault(plan, results):
        plan.struck = "raised"
        raise error("out of fuel")

    return fault


def keys(plan, results):
    if not isinstance(results[0], dict):
        return results, None
    obs = dict(results[0])
    obs.pop(next(iter(obs)))
    return (obs, *results[1:]), "observation"


ANY = {
    "both: shape": part(lambda space, x: np.stack([x, x])),
    "both: text": part(lambda space, x: np.full(x.shape, "no")),
    "both: complex": part(lambda space, x: x.astype(complex)),
    "both: none": part(lambda space, x: np.full(x.shape, None, object)),
    "both: range": part(out_of_range),
    "both: below": part(below),
    "both: wraps": part(wraps),
    "both: nan": part(infinite),
    "both: lossy": part(lossy),
    "both: bounds": part(wrong_bounds),
    "both: keys": keys,
    "both: kind": lambda plan, results: ((object(), *results[1:]), "observation"),
    "reset: alone": lambda plan, results: (results[0], "reset of"),
    "step: old": lambda plan, results: (results[:3] + results[4:], "step of"),
    "step: six": lambda plan, results: ((*results, {}), "step of"),
    "step: info": lambda plan, results: ((*results[:4], False), "step of"),
    "both: error": raising(ZeroDivisionError),
    "both: exit": raising(SystemExit),
    "both: generator": raising(GeneratorExit),
    "both: fuel": raising(Fuel),
}
SINGLE = {
    f"step: reward {x!r}": reward(x)
    for x in ("1.5", None, {}, 1j, True, np.zeros(2), [1.0], 10**400)
} | {
    f"step: flag {i} {x!r}": flag(i, x)
    for i in (2, 3)
    for x in ("False", None, {}, 0, np.zeros(1, bool))
}
VECTOR = {
    "step: reward scalar": reward(1.0),
    "step: reward (1, 1)": reward(np.ones((1, 1))),
    "step: reward text": lambda plan, results: (
        (results[0], np.full(plan.num_envs, "1"), *results[2:]), "reward"),
    "step: flag scalar": flag(2, False),
    "step: flag integers": lambda plan, results: (
        (*results[:3], np.zeros(plan.num_envs, int), {}), "truncated"),
}  # fmt: skip


# Both sides ------------------------------------------------------------------------


def adapted(plan, seed):
    """The simulators behind their adapter."""
    if not plan.is_vector:
        zeros = content(plan, 0, 0, 0)[0]
        buffers = tree(lambda _, x: np.empty_like(x), plan.observation, zeros)
        made = iter(range(plan.num_envs))

        def make():
            return Single(plan, buffers, next(made))

        if plan.adapter == "single":
            env = from_callable(make, plan.num_envs, seed, name=NAME)
        else:
            mode = AutoresetMode[plan.adapter.partition(" ")[2]]
            together = SyncVectorEnv([make] * plan.num_envs, autoreset_mode=mode)
            env = from_vector(together, seed, name=NAME)
    else:
        env = from_vector(Vector(plan), seed, name=NAME)
    return previous_action_and_reward(env) if plan.previous else env


def random_actions(plan, rng):
    """[T, B, ...], those of a Box often outside its bounds."""
    size = (LENGTH, plan.num_envs)
    if isinstance(plan.action, spaces.Discrete):
        return rng.integers(0, plan.action.n, size).astype(np.int32)
    return (3 * rng.normal(size=(*size, 2))).astype(np.float32)


def driven(env, actions):
    """The rows that an actor would write, with its checks."""
    rows = UnrollBuffer(env.observation_spec, env.action_spec, LENGTH, env.num_envs)
    rows.write_step(0, env.reset())
    for t, action in enumerate(actions):
        step, paid, discount = env.step(action)
        rows.write_step(t + 1, step)
        rows.write_reward(t, paid, discount)
        rows.write_action(t, action)
    rows.check()
    return rows


def check_told(plan, told, streams):
    """Success is told of each episode that ended, once."""
    ends = [sum(last for _, _, last, *_ in stream) for stream in streams]
    ends = [n * told for n, told in zip(ends, plan.tells, strict=True)]
    known = [n * succeeds(plan, i) for i, n in enumerate(ends)]
    assert told == (sum(known), sum(ends))


def in_spec(space, x):
    """What is learned from of an observation."""
    if isinstance(space, spaces.Discrete):
        return np.int32(x - space.start)
    wide = {"f": np.float32, "i": np.int32, "u": np.int32}
    return x.astype(wide[x.dtype.kind]) if x.dtype.itemsize == 8 else x


def check_right(plan, rows, streams, actions):
    """Every element is that of the plain loop."""
    steps = rows.steps()
    for i, stream in enumerate(streams):
        for t, (obs, first, last, paid, discount) in enumerate(stream):
            shown = steps.obs.obs if plan.previous else steps.obs

            def same(space, x, found, t=t, i=i):
                known = in_spec(space, x)
                assert found.dtype == known.dtype
                np.testing.assert_array_equal(found[t, i], known)

            tree(same, plan.observation, obs, shown)
            assert steps.first[t, i] == first and steps.last[t, i] == last
            if t:
                assert rows.reward[t - 1, i] == paid
                assert rows.discount[t - 1, i] == discount
            if plan.previous and t:
                known = np.where(first, 0, actions[t - 1, i])
                np.testing.assert_array_equal(steps.obs.action[t, i], known)
                assert steps.obs.reward[t, i] == paid
