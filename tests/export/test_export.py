"""Exported actors act as the agents they were."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from exported import (
    ARMS,
    BOUNDED,
    CASES,
    FREE,
    MIXED,
    PREVIOUS,
    SMALL,
    SQUASHED,
    VECTOR,
    B,
    T,
    actors_part,
    assert_close,
    parameters,
    remembering,
    row,
    stream,
    taken,
    written,
)  # fmt: skip

from jaxrl_par import export, random
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.normalize import Normalized, normalize_observations
from jaxrl_par.export import ExportError
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.numpy_actor import Actor, ActorError
from jaxrl_par.types import Box


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a small LSTM actor."""
    return written(tmp_path_factory.mktemp("saved"), CASES["lstm"])[2]


@pytest.mark.sample(2)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_both_forms_act_as_the_network(tmp_path, case):
    network, params, folder = written(tmp_path, case)
    shared = case[2].get("shared", True)
    steps, apply = stream(case[0]), jax.jit(network.apply)
    in_numpy, in_jax = Actor.load(folder), export.load(folder)
    carry = remembering(network.initial_carry(B))
    numpy_carry = actors_part(jax.tree.map(np.asarray, carry), shared)
    jax_carry = actors_part(carry, shared)
    assert_close(in_jax.initial_carry(B), in_numpy.initial_carry(B))
    assert_close(in_numpy.initial_carry(B), jax.tree.map(np.zeros_like, numpy_carry))
    for t in range(T):
        step = row(steps, t)
        (policy, _), carry = apply(params, carry, step)
        expected = taken(case, policy)
        found, _ = in_numpy.distribution(step.obs, step.first, numpy_carry)
        action, numpy_carry = in_numpy.step(step.obs, step.first, numpy_carry)
        assert_close((action, found), expected)
        assert_close(numpy_carry, actors_part(carry, shared))
        action, found, jax_carry = in_jax.step(step.obs, step.first, jax_carry)
        assert_close((action, found), expected)
        assert_close(jax_carry, actors_part(carry, shared))


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


def test_the_step_is_for_every_platform_and_any_batch(saved):
    data = (saved / "step.stablehlo").read_bytes()
    exported = jax.export.deserialize(bytearray(data))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    # Readable without jaxrl_par: dicts, lists and arrays alone.
    with np.load(saved / "actor.npz") as arrays:
        params = dict(arrays)
    step = row(stream(PREVIOUS), 0)
    carry = [np.zeros((B, 6), np.float32)] * 2
    action, _, _ = exported.call(params, jax.tree.leaves(step.obs), step.first, carry)
    actor = Actor.load(saved)
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
def test_a_transformer_is_compiled_for_the_batch_sizes_asked_for(tmp_path):
    with pytest.raises(ExportError, match="say with batch_sizes"):
        written(tmp_path, CASES["gtrxl"], batch_sizes=None)
    _, _, folder = written(tmp_path, CASES["gtrxl"], batch_sizes=(B,))
    assert [x.name for x in folder.glob("step*")] == ["step_3.stablehlo"]


def test_what_numpy_does_not_know_is_refused_or_left_out(tmp_path):
    case = (Box((9, 8, 2)), ARMS, {"compute_dtype": "bfloat16"})
    with pytest.raises(ExportError, match="no compute_dtype = bfloat16; it knows fl"):
        written(tmp_path, case)
    assert not (tmp_path / "actor").exists()
    network, params, folder = written(tmp_path, case, numpy=False)
    assert not (folder / "numpy_actor").exists()
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
