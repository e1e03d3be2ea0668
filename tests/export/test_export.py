"""Exported actors act as the agents they were, and damaged ones do not act."""

import ast
import errno
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import envs, export, numpy_actor, random
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.normalize import Normalized, normalize_observations
from jaxrl_par.envs.wrappers import WithPrevious, previous_action_and_reward
from jaxrl_par.export import ExportError
from jaxrl_par.export.folder import _save
from jaxrl_par.networks import NetworkConfig, TransformerConfig, actor_critic
from jaxrl_par.numpy_actor import FORMAT, Actor, ActorError, config_hash
from jaxrl_par.training.failures import DiskFullError
from jaxrl_par.types import Box, Discrete, TimeStep

T, B = 6, 3
VECTOR, IMAGE, INTEGER = Box((4,)), Box((5, 6, 2)), Discrete(7)
PIXELS, BYTES = Box((5, 4, 2), np.dtype(np.uint8)), Box((9,), np.dtype(np.uint8))
ARMS, FREE = Discrete(3), Box((2,))
BOUNDED = Box((2,), low=np.array([-2.0, 0.0]), high=np.array([2.0, 5.0]))
PREVIOUS = WithPrevious({"place": INTEGER, "map": IMAGE}, ARMS, Box(()))
MIXED = {
    "seen": (PIXELS, BYTES),
    "felt": [VECTOR, IMAGE],
    "count": Box((), np.dtype(np.int32)),
}
MOVED = (
    Box((2, 5, 5)),
    Box((8, 9), np.dtype(np.uint8)),
    Box((2, 6, 7), np.dtype(np.uint8), 10.0, 180.0),
    Box((3,), np.dtype(np.int32), np.array([-9, 0, 4]), np.array([200, 300, 4])),
)
SMALL = {"widths": (16, 8), "memory_width": 6, "channels": 3}
SQUASHED = {"policy": "squashed"}

CASES = {
    "gru, separate, squashed": (
        VECTOR,
        BOUNDED,
        {"memory": "gru", "shared": False, "activation": "relu"} | SQUASHED,
    ),
    "mlp": (VECTOR, ARMS, {}),
    "relu, separate": (VECTOR, FREE, {"shared": False, "activation": "relu"}),
    "no layers": (PIXELS, ARMS, {"torso": "mlp", "widths": ()}),
    "lstm alone": (INTEGER, ARMS, {"widths": (), "memory": "lstm"}),
    "conv, pytree": (MIXED, BOUNDED, {"memory": "lstm"} | SQUASHED),
    "lstm": (PREVIOUS, ARMS, {"memory": "lstm", "torso": "mlp"}),
    "lstm, separate": (IMAGE, FREE, {"memory": "lstm", "shared": False}),
    "gru": (INTEGER, ARMS, {"memory": "gru"}),
    "conv": (PIXELS, ARMS, {"activation": "relu"}),
    "dense pytree": (MIXED, FREE, {"torso": "mlp"}),
    "other axes and bounds": (MOVED, ARMS, {}),
    "other bounds, dense": (MOVED, ARMS, {"torso": "mlp"}),
    "swish": (MIXED, ARMS, {"activation": "swish"}),
}


def is_spec(x):
    return isinstance(x, Box | Discrete)


def sample(spec, rng, shape):
    if isinstance(spec, Discrete):
        return rng.integers(spec.num_values, size=shape).astype(np.int32)
    if spec.dtype == np.float32:
        return rng.normal(size=(*shape, *spec.shape)).astype(np.float32)
    return rng.integers(200, size=(*shape, *spec.shape)).astype(spec.dtype)


def stream(specs, seed=0):
    """Steps [T, B] with random observations and episode starts."""
    rng = np.random.default_rng(seed)
    obs = jax.tree.map(lambda s: sample(s, rng, (T, B)), specs, is_leaf=is_spec)
    return TimeStep(obs, rng.random((T, B)) < 0.3, np.zeros((T, B), bool))


def row(steps, t):
    return jax.tree.map(lambda x: x[t], steps)


def parameters(network, step, seed=0):
    """Far from the near-uniform start, so that outputs depend on everything."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(network.init, jax.random.key(0), step)
    return jax.tree.map(
        lambda x: jnp.array(0.4 * rng.normal(size=x.shape), x.dtype), shapes
    )


def written(path, case, **options):
    """(network, its parameters, folder) of a case."""
    specs, action, settings = case
    config = NetworkConfig(**(SMALL | settings))
    network = actor_critic(specs, action, config)
    params = parameters(network, row(stream(specs), 0))
    folder = export.write(
        path / "actor",
        network=config,
        observation_spec=specs,
        action_spec=action,
        params=params,
        **options,
    )
    return network, params, folder


def assert_close(actual, expected):
    assert len(jax.tree.leaves(actual)) == len(jax.tree.leaves(expected))
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def actors_part(carry, shared):
    return tuple(jax.tree.leaves(carry if shared or not carry else carry[0]))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """The folder of a small LSTM actor, which tests copy."""
    return written(tmp_path_factory.mktemp("saved"), CASES["lstm"])[2]


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "actor"))


@pytest.mark.sample(2)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_both_forms_act_as_the_network(tmp_path, case):
    network, params, folder = written(tmp_path, case)
    shared = case[2].get("shared", True)
    steps, apply = stream(case[0]), jax.jit(network.apply)
    in_numpy, in_jax = Actor.load(folder), export.load(folder)
    carry = jax.tree.map(lambda x: x + 0.5, network.initial_carry(B))
    numpy_carry = actors_part(jax.tree.map(np.asarray, carry), shared)
    jax_carry = actors_part(carry, shared)
    assert_close(in_jax.initial_carry(B), in_numpy.initial_carry(B))
    assert_close(in_numpy.initial_carry(B), jax.tree.map(np.zeros_like, numpy_carry))
    for t in range(T):
        step = row(steps, t)
        (policy, _), carry = apply(params, carry, step)
        found, _ = in_numpy.distribution(step.obs, step.first, numpy_carry)
        assert_close(found, policy._asdict())
        action, numpy_carry = in_numpy.step(step.obs, step.first, numpy_carry)
        assert_close(action, policy.mode())
        assert_close(numpy_carry, actors_part(carry, shared))
        action, found, jax_carry = in_jax.step(step.obs, step.first, jax_carry)
        assert_close((action, found), (policy.mode(), policy._asdict()))
        assert_close(jax_carry, actors_part(carry, shared))


@pytest.mark.slow
def test_whole_episodes_are_those_of_the_agent(tmp_path):
    env = previous_action_and_reward(envs.make("CartPole-v1", 4))
    config = NetworkConfig(widths=(16,), memory="lstm", memory_width=32)
    network = actor_critic(env.observation_spec, env.action_spec, config)
    agent = a2c(network, optax.sgd(0.1))
    env_state, step = jax.jit(env.reset)(random.key(0))
    params = parameters(network, step)
    folder = export.write(
        tmp_path / "actor",
        network=config,
        observation_spec=env.observation_spec,
        action_spec=env.action_spec,
        params=params,
    )
    in_numpy, in_jax = Actor.load(folder), export.load(folder)
    carry, starts, seen = agent.initial_carry(4), 0, set()
    numpy_carry, jax_carry = in_numpy.initial_carry(4), in_jax.initial_carry(4)
    greedy, env_step = jax.jit(agent.greedy), jax.jit(env.step)
    for key in jax.random.split(random.key(1), 80):
        action, carry, _ = greedy(params, carry, step, key)
        first, obs = np.asarray(step.first), jax.device_get(step.obs)
        numpy_action, numpy_carry = in_numpy.step(obs, first, numpy_carry)
        jax_action, _, jax_carry = in_jax.step(obs, first, jax_carry)
        assert_close((numpy_action, jax_action), (action, action))
        assert_close(numpy_carry, tuple(jax.tree.leaves(carry)))
        assert_close(jax_carry, tuple(jax.tree.leaves(carry)))
        env_state, step, _, _ = env_step(env_state, action, key)
        starts += int(first.sum())
        seen |= set(action.tolist())
    assert starts > 8 and seen == {0, 1}


def test_normalised_observations_are_part_of_the_actor(tmp_path):
    config = NetworkConfig(**SMALL)
    network, steps = actor_critic(MIXED, FREE, config), stream(MIXED)
    agent = normalize_observations(a2c(network, optax.sgd(0.1)), clip=1.5)
    rng = np.random.default_rng(0)
    step = jax.tree.map(jnp.asarray, row(steps, 0))
    statistics = jax.tree.map(
        lambda x: jnp.array(0.1 + rng.random(x.shape), jnp.float32),
        jax.eval_shape(agent.init, random.key(0), step).statistics,
    )
    params = Normalized(parameters(network, step), statistics)
    folder = export.write(
        tmp_path / "actor",
        network=config,
        observation_spec=MIXED,
        action_spec=FREE,
        params=params,
        clip=1.5,
    )
    in_numpy, in_jax = Actor.load(folder), export.load(folder)
    greedy = jax.jit(agent.greedy)
    for t in range(T):
        step = row(steps, t)
        action, _, _ = greedy(params, (), step, random.key(0))
        assert_close(in_numpy.step(step.obs, step.first, ())[0], action)
        assert_close(in_jax.step(step.obs, step.first, ())[0], action)


@pytest.mark.parametrize("policy", ["gaussian", "squashed"])
def test_no_action_is_outside_its_bounds(tmp_path, policy):
    """Behind an actor may be a robot, and nobody who clips."""
    # 0.1 of float64, than which that of float32 is larger.
    low, high = np.array([-0.25, -np.inf]), np.array([0.1, 0.5])
    bounds = Box((2,), low=low, high=high) if policy == "gaussian" else BOUNDED
    network, params, folder = written(tmp_path, (VECTOR, bounds, {"policy": policy}))
    step = row(stream(VECTOR), 0)
    step = step._replace(obs=100 * step.obs)
    (chosen, _), _ = jax.jit(network.apply)(params, (), step)
    in_numpy, in_jax = Actor.load(folder), export.load(folder)
    greedy, _ = in_numpy.step(step.obs, step.first, ())
    near = np.clip(chosen.mode(), bounds.low, bounds.high)
    assert_close(greedy, np.float32(near))
    in_jax_too = np.asarray(in_jax.step(step.obs, step.first, ())[0])
    assert_close(in_jax_too, greedy)
    for x in np.float64([greedy, in_jax_too]):
        assert ((x >= bounds.low) & (x <= bounds.high)).all()
    if policy == "gaussian":
        assert not np.array_equal(greedy, chosen.mode())
    obs, first = np.tile(step.obs[:1], (1000, 1)), np.ones(1000, bool)
    drawn, _ = in_numpy.step(obs, first, (), np.random.default_rng(0))
    inside = (np.float64(drawn) >= bounds.low) & (np.float64(drawn) <= bounds.high)
    assert inside.all()
    assert np.isfinite(drawn).all() and len(np.unique(drawn)) > 500


def test_sampled_actions_have_the_policys_probabilities(tmp_path):
    _, params, folder = written(tmp_path, CASES["mlp"])
    # Weight 0 for the last action; the first and the second stay.
    heads = params["params"]["_Heads_0"]
    heads["policy_bias"] = heads["policy_bias"].at[2].set(-1e4)
    specs, action, settings = CASES["mlp"]
    export.write(
        folder,
        network=NetworkConfig(**(SMALL | settings)),
        observation_spec=specs,
        action_spec=action,
        params=params,
    )
    num = 40_000
    obs = np.tile(row(stream(specs), 0).obs[:1], (num, 1))
    actor, first = Actor.load(folder), np.ones(num, bool)
    drawn, _ = actor.step(obs, first, (), np.random.default_rng(0))
    logits = actor.distribution(obs[:1], first[:1], ())[0]["logits"][0]
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert drawn.dtype == np.int32 and 0.05 < expected[0] < 0.95
    counts = np.bincount(drawn, minlength=3)
    np.testing.assert_allclose(counts / num, expected, atol=0.01)
    assert counts[2] == 0


@pytest.mark.parametrize("policy", ["gaussian", "squashed"])
def test_sampled_numbers_have_the_policys_moments(tmp_path, policy):
    # Without bounds for a policy that has none: actions outside would be clipped.
    case = (VECTOR, BOUNDED if policy == "squashed" else FREE, {"policy": policy})
    _, _, folder = written(tmp_path, case)
    num = 40_000
    obs = np.tile(row(stream(VECTOR), 0).obs[:1], (num, 1))
    actor, first = Actor.load(folder), np.ones(num, bool)
    drawn, _ = actor.step(obs, first, (), np.random.default_rng(0))
    found, _ = actor.distribution(obs[:1], first[:1], ())
    assert drawn.dtype == np.float32 and drawn.shape == (num, 2)
    if policy == "squashed":
        assert np.all((drawn > BOUNDED.low) & (drawn < BOUNDED.high))
        drawn = np.arctanh((drawn - found["centre"]) / found["half_width"])
    np.testing.assert_allclose(drawn.mean(0), found["mean"][0], atol=0.03)
    np.testing.assert_allclose(np.log(drawn.std(0)), found["log_std"][0], atol=0.03)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.03


def test_squashed_actions_stay_off_their_bounds(tmp_path):
    _, params, folder = written(tmp_path, (VECTOR, BOUNDED, SQUASHED))
    heads = params["params"]["_Heads_0"]
    heads["policy_bias"] = jnp.array([100.0, -100.0])
    export.write(
        folder,
        network=NetworkConfig(**(SMALL | SQUASHED)),
        observation_spec=VECTOR,
        action_spec=BOUNDED,
        params=params,
    )
    step = row(stream(VECTOR), 0)
    for rng in (None, np.random.default_rng(0)):
        action, _ = Actor.load(folder).step(step.obs, step.first, (), rng)
        assert np.all(action[:, 0] > 1.9999) and np.all(action[:, 0] < 2)
        assert np.all(action[:, 1] < 1e-4) and np.all(action[:, 1] > 0)


def test_what_a_step_returned_stays_as_it_was(saved, tmp_path):
    gaussian = written(tmp_path, (PREVIOUS, FREE, {"memory": "gru", "torso": "mlp"}))
    for folder in (saved, gaussian[2]):
        actor, steps = Actor.load(folder), stream(PREVIOUS)
        carry = tuple(x + np.float32(0.5) for x in actor.initial_carry(B))
        before = [x.copy() for x in carry]
        step = row(steps, 0)
        action, after = actor.step(step.obs, step.first, carry)
        policy, _ = actor.distribution(step.obs, step.first, carry)
        returned = [action, *after, *policy.values()]
        kept = [x.copy() for x in returned]
        actor.step(row(steps, 1).obs, step.first, after)
        np.testing.assert_equal(carry, tuple(before))
        np.testing.assert_equal(returned, kept)


def test_batches_may_change_from_step_to_step(saved):
    actor, step = Actor.load(saved), row(stream(PREVIOUS), 0)
    together, _ = actor.distribution(step.obs, step.first, actor.initial_carry(B))
    for i in range(B):
        obs = jax.tree.map(lambda x, i=i: x[i : i + 1], step.obs)
        alone, _ = actor.distribution(
            obs, step.first[i : i + 1], actor.initial_carry(1)
        )
        assert_close(alone["logits"], together["logits"][i : i + 1])


def test_observations_may_be_a_list_or_a_dict_in_another_order(saved):
    step = row(stream(PREVIOUS), 0)
    for actor in (Actor.load(saved), export.load(saved)):
        carry = actor.initial_carry(B)
        action = actor.step(step.obs, step.first, carry)[0]
        leaves = jax.tree.leaves(step.obs)
        assert_close(actor.step(leaves, step.first, carry)[0], action)
        places_first = dict(reversed(step.obs.obs.items()))
        assert list(places_first) == ["place", "map"]
        obs = step.obs._replace(obs=places_first)
        assert_close(actor.step(obs, step.first, carry)[0], action)
        names = [x["name"].removeprefix("obs") for x in actor.config["observations"]]
        assert names == [".obs['map']", ".obs['place']", ".action", ".reward"]


def test_arrays_of_another_shape_are_refused_by_name(saved):
    actor, step = Actor.load(saved), row(stream(PREVIOUS), 0)
    wrong = step.obs._replace(reward=np.zeros((B, 1), np.float32))
    with pytest.raises(ActorError, match=r"obs.reward must be of shape \(3,\), got"):
        actor.step(wrong, step.first, actor.initial_carry(B))
    with pytest.raises(ActorError, match="has 4 arrays, got 1"):
        actor.step(step.obs.reward, step.first, actor.initial_carry(B))
    for carry in (actor.initial_carry(1), actor.initial_carry(B)[1:], ()):
        with pytest.raises(ActorError, match=r"carry must have shapes \[\(3, 6\)"):
            actor.step(step.obs, step.first, carry)


def test_the_critic_is_left_behind(tmp_path):
    _, params, folder = written(tmp_path, CASES["lstm, separate"])
    with np.load(folder / "actor.npz") as arrays:
        names = set(arrays.files)
    assert names and not any("critic" in n or "value" in n for n in names)
    assert len(names) < len(jax.tree.leaves(params)) - 5
    assert len(json.loads((folder / "config.json").read_text())["carry"]) == 2


def test_the_step_is_for_every_platform_and_any_batch(folder):
    data = (folder / "step.stablehlo").read_bytes()
    exported = jax.export.deserialize(bytearray(data))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    # Readable without jaxrl_par: dicts, lists and arrays alone.
    with np.load(folder / "actor.npz") as arrays:
        params = dict(arrays)
    step = row(stream(PREVIOUS), 0)
    carry = [np.zeros((B, 6), np.float32)] * 2
    action, _, _ = exported.call(params, jax.tree.leaves(step.obs), step.first, carry)
    actor = Actor.load(folder)
    assert_close(action, actor.step(step.obs, step.first, actor.initial_carry(B))[0])


def test_batch_sizes_are_those_asked_for(tmp_path):
    _, _, folder = written(tmp_path, CASES["gru"], batch_sizes=[1, B])
    assert sorted(x.name for x in folder.glob("step*")) == [
        "step_1.stablehlo",
        "step_3.stablehlo",
    ]
    actor = export.load(folder)
    for batch in (1, B):
        obs, first = np.zeros(batch, np.int32), np.ones(batch, bool)
        assert actor.step(obs, first, actor.initial_carry(batch))[0].shape == (batch,)
    with pytest.raises(ExportError, match=r"for batches of \[1, 3\], not 2"):
        actor.step(obs[:2], first[:2], actor.initial_carry(2))
    # A new export leaves nothing of the old one.
    _, _, folder = written(tmp_path, CASES["gru"])
    assert [x.name for x in folder.glob("step*")] == ["step.stablehlo"]


def test_a_donated_carry_is_not_copied(saved):
    step = row(stream(PREVIOUS), 0)
    for donate in (False, True):
        actor = export.load(saved, donate_carry=donate)
        carry = actor.initial_carry(B)
        jax.block_until_ready(actor.step(step.obs, step.first, carry))
        assert all(x.is_deleted() == donate for x in carry)


@pytest.mark.slow
def test_a_transformer_is_exported_for_the_batch_sizes_asked_for(tmp_path):
    transformer = TransformerConfig(1, num_heads=2, memory_length=4, mlp_width=8)
    settings = {"memory": "gtrxl", "shared": False, "transformer": transformer}
    case = (VECTOR, ARMS, settings)
    with pytest.raises(ExportError, match="no memory = gtrxl; it knows none, lstm, gr"):
        written(tmp_path, case)
    with pytest.raises(ExportError, match="say with batch_sizes"):
        written(tmp_path, case, numpy=False)
    network, params, folder = written(tmp_path, case, numpy=False, batch_sizes=(B,))
    actor, steps = export.load(folder), stream(VECTOR)
    carry, apply = network.initial_carry(B), jax.jit(network.apply)
    jax_carry = actor.initial_carry(B)
    for t in range(T):
        step = row(steps, t)
        (policy, _), carry = apply(params, carry, step)
        _, found, jax_carry = actor.step(step.obs, step.first, jax_carry)
        assert_close(found, policy._asdict())
        assert_close(jax_carry, actors_part(carry, shared=False))


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "settings, message",
    [
        ({"torso": "deep"}, "no torso = deep; it knows mlp, conv"),
        ({"compute_dtype": "bfloat16"}, "no compute_dtype = bfloat16; it knows float"),
    ],
)
def test_what_numpy_does_not_know_is_refused_or_left_out(tmp_path, settings, message):
    case = (Box((9, 8, 2)), ARMS, settings)
    with pytest.raises(ExportError, match=message):
        written(tmp_path, case)
    assert not (tmp_path / "actor").exists()
    network, params, folder = written(tmp_path, case, numpy=False)
    assert not (folder / "numpy_actor.py").exists()
    with pytest.raises(ActorError, match="without the form for NumPy"):
        Actor.load(folder)
    step = row(stream(case[0]), 0)
    (policy, _), _ = jax.jit(network.apply)(params, (), step)
    _, found, _ = export.load(folder).step(step.obs, step.first, ())
    assert_close(found, policy._asdict())


def test_parameters_of_another_network_are_refused(tmp_path):
    _, params, _ = written(tmp_path, CASES["mlp"])
    for settings in ({"widths": (16, 9)}, {"shared": False}):
        with pytest.raises(ExportError, match=r"params\..* is .* there and .* in the"):
            export.write(
                tmp_path / "other",
                network=NetworkConfig(**(SMALL | settings)),
                observation_spec=VECTOR,
                action_spec=ARMS,
                params=params,
            )
    assert not (tmp_path / "other").exists()


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "actor").mkdir()
    (tmp_path / "actor" / "config.json").write_text("mine")
    (tmp_path / "actor" / "thesis.tex").write_text("mine")
    with pytest.raises(ExportError, match="holds other things"):
        written(tmp_path, CASES["mlp"])
    assert len(list((tmp_path / "actor").iterdir())) == 2
    assert (tmp_path / "actor" / "config.json").read_text() == "mine"


def test_files_of_others_are_left_alone(tmp_path):
    """Also those with the names of an export's, and those that somebody changed."""
    folder = tmp_path / "actor"
    folder.mkdir()
    files, config = {"actor.npz": b"1", "numpy_actor.py": b"2"}, {"format": FORMAT}
    for name in ("config.json", *files, "step_7.stablehlo", "actor.npz.new"):
        (folder / name).write_text("mine")
        with pytest.raises(ExportError, match=rf"such as {name}.*overwrite=True"):
            _save(folder, files, config, False)
        assert [x.name for x in folder.iterdir()] == [name]
        assert (folder / name).read_text() == "mine"
        (folder / name).unlink()
    _save(folder, files, config, False)
    _save(folder, {"actor.npz": b"3"}, config, False)
    assert sorted(x.name for x in folder.iterdir()) == ["actor.npz", "config.json"]
    (folder / "actor.npz").write_text("mine now")
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(ExportError, match=r"such as actor.npz"):
        _save(folder, files, config, False)
    assert (folder / "actor.npz").read_text() == "mine now"
    _save(folder, files, config, True)
    assert (folder / "thesis.tex").read_text() == "mine"
    assert (folder / "actor.npz").read_bytes() == b"1"
    with pytest.raises(ExportError, match="such as thesis"):
        _save(folder, files, config, False)


@pytest.mark.parametrize("old", [{}, {"actor.npz": b"0", "step_1.stablehlo": b"0"}])
def test_an_export_that_was_killed_is_replaced(tmp_path, monkeypatch, old):
    class KilledError(Exception):
        pass

    files, config = {"actor.npz": b"1", "step.stablehlo": b"2"}, {"format": FORMAT}
    whole = {}
    for count in range(100):
        folder = tmp_path / f"{count}"
        if old:
            _save(folder, old, config, False)
        calls = []

        def kills(original, calls=calls, count=count):
            def call(path, *args, **options):
                calls.append(path)
                if len(calls) == count:
                    if original.__name__ == "write_bytes":
                        original(path, args[0][:0])  # cut off
                    raise KilledError
                return original(path, *args, **options)

            return call

        with monkeypatch.context() as patch, suppress(KilledError):
            for name in ("write_bytes", "replace", "unlink"):
                patch.setattr(Path, name, kills(getattr(Path, name)))
            _save(folder, files, config, False)
        whole[count] = len(calls) < count
        _save(folder, files, config, False)
        there = sorted(x.name for x in folder.iterdir())
        assert there == ["actor.npz", "config.json", "step.stablehlo"]
        if whole[count] and count:
            break
    assert count > 4


def test_an_actor_that_was_imported_from_its_folder_is_written_again(tmp_path):
    """Python leaves its cache there."""
    folder = written(tmp_path, CASES["mlp"])[2]
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "numpy_actor.cpython-311.pyc").write_bytes(b"x")
    written(tmp_path, CASES["mlp"])
    assert not (folder / "__pycache__").exists()


def test_the_config_tells_what_the_actor_is(tmp_path):
    folder = written(tmp_path, CASES["conv, pytree"])[2]
    text = (folder / "config.json").read_text()
    # Infinities are no JSON, and other languages refuse them.
    config = json.loads(text, parse_constant=pytest.fail)
    assert config["action"]["low"] == [-2, 0] and config["action"]["high"] == [2, 5]
    pixels = config["observations"][-1]
    assert pixels["shape"] == [9] and pixels["dtype"] == "uint8"
    assert pixels["low"] is pixels["high"] is None
    assert config["network"]["torso"] == "conv" and config["network"]["channels"] == 3
    assert config["versions"]["jax"] == jax.__version__
    for name, digest in config["files"].items():
        assert sha256((folder / name).read_bytes()).hexdigest() == digest
    assert len(config["files"]) == 3


def test_a_write_that_fails_leaves_no_actor(folder, tmp_path, monkeypatch):
    write_bytes = Path.write_bytes

    def full(path, data):
        if path.suffix == ".stablehlo":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError, match=r"step\.stablehlo"):
        written(tmp_path, CASES["mlp"])
    with pytest.raises(ExportError, match=r"not a whole one: no .*config\.json"):
        export.load(folder)
    monkeypatch.undo()
    export.load(written(tmp_path, CASES["mlp"])[2])


FILES = ("config.json", "actor.npz", "step.stablehlo")


def load_both(folder):
    """The first error of either form."""
    Actor.load(folder)
    export.load(folder)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
@pytest.mark.parametrize("name", FILES)
def test_damage_is_told_with_the_file(folder, name, damage):
    path = folder / name
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes(data[: len(data) // 2] if damage == "truncate" else data)
    if damage == "delete":
        path.unlink()
    with pytest.raises((ActorError, ExportError), match=f"{folder}.*{name}"):
        load_both(folder)


def edit(folder, **changes):
    """Changes the config, with the hash that belongs to it."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(config | {"sha256": config_hash(config)}))


def replace(folder, name, data):
    """Puts another file in the folder, with the hash that belongs to it."""
    files = json.loads((folder / "config.json").read_text())["files"]
    (folder / name).write_bytes(data)
    edit(folder, files=files | {name: sha256(data).hexdigest()})


def test_an_unknown_format_is_refused(folder):
    edit(folder, format=2)
    with pytest.raises(ActorError, match="has format 2, and this program reads"):
        Actor.load(folder)
    with pytest.raises(ExportError, match="has format 2, and this program reads"):
        export.load(folder)


def test_a_config_that_was_edited_is_refused(folder):
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"memory_width": 6', '"memory_width": 7'))
    with pytest.raises(ActorError, match=r"config\.json is damaged: its SHA-256"):
        Actor.load(folder)
    for content in ("[]", "{}", "{"):
        path.write_text(content)
        with pytest.raises(ActorError, match=r"config\.json is damaged"):
            Actor.load(folder)


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("kind", ["npz", "npy", "pickle"])
def test_a_pickle_is_refused_and_never_run(folder, tmp_path, kind):
    victim = tmp_path / "executed"
    file, array = io.BytesIO(), np.array([Malicious(victim)], dtype=object)
    if kind == "npz":
        name = "params._Heads_0.policy"
        np.savez(file, allow_pickle=True, **{name: array})
    elif kind == "npy":
        np.save(file, array, allow_pickle=True)
    else:
        pickle.dump(array, file)
    # It would work, with the right hash, if anything unpickled it.
    replace(folder, "actor.npz", file.getvalue())
    for load, error in ((Actor.load, ActorError), (export.load, ExportError)):
        with pytest.raises(error, match=r"actor\.npz does not hold plain arrays"):
            load(folder)
    assert not victim.exists()
    np.load(io.BytesIO(file.getvalue()), allow_pickle=True)[
        name if kind == "npz" else 0
    ]
    assert victim.exists()


def test_arrays_of_another_shape_or_type_are_refused(folder):
    with np.load(folder / "actor.npz") as arrays:
        good = dict(arrays)
    name = "params.torso_memory.bias"
    for bad in (good[name][1:], good[name].astype(np.float64), None):
        file = io.BytesIO()
        others = {n: x for n, x in good.items() if n != name}
        np.savez(file, **others, **({} if bad is None else {name: bad}))
        replace(folder, "actor.npz", file.getvalue())
        with pytest.raises(ActorError, match=r"torso_memory.bias must be float32 \(24"):
            Actor.load(folder)


def test_a_program_that_jax_cannot_read_is_told(folder):
    replace(folder, "step.stablehlo", b"no flatbuffer" * 100)
    with pytest.raises(ExportError, match=r"cannot read .*step\.stablehlo, which jax"):
        export.load(folder)


ALONE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jax", "jaxlib", "jaxrl_par", "flax"):
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
import json
import numpy as np
from numpy_actor import Actor

actor = Actor.load(sys.argv[1])
carry, actions = actor.initial_carry(3), []
with np.load(sys.argv[2]) as steps:
    names = sorted(n for n in steps.files if n != "first")
    for t, first in enumerate(steps["first"]):
        action, carry = actor.step([steps[n][t] for n in names], first, carry)
        actions.append(action.tolist())
assert not {"jax", "jaxrl_par"} & set(sys.modules)
print(json.dumps(actions))
"""


def test_the_copied_file_acts_alone(folder, tmp_path):
    steps, actor = stream(PREVIOUS), Actor.load(folder)
    leaves = {f"leaf_{i}": x for i, x in enumerate(jax.tree.leaves(steps.obs))}
    np.savez(tmp_path / "steps.npz", first=steps.first, **leaves)
    site = Path(np.__file__).parent.parent
    # Without `site`, only the folder and NumPy can be found, and the rest is blocked.
    code = f"import sys; sys.path += [{str(folder)!r}, {str(site)!r}]\n{ALONE}"
    arguments = [str(folder), str(tmp_path / "steps.npz")]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    carry, expected = actor.initial_carry(B), []
    for t in range(T):
        step = row(steps, t)
        action, carry = actor.step(step.obs, step.first, carry)
        expected.append(action.tolist())
    assert json.loads(done.stdout) == expected


def test_the_copied_file_imports_numpy_alone():
    tree = ast.parse(Path(numpy_actor.__file__).read_text())
    found = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or node.names[0].name]
    }
    assert found - sys.stdlib_module_names == {"numpy"}
