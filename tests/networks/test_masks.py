"""Networks of masked observations and of actions with several parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import exploration, random
from jaxrl_par.envs.previous import WithPrevious, with_previous
from jaxrl_par.errors import RefusedError
from jaxrl_par.masks import masks, none_allowed, unmasked
from jaxrl_par.networks import (
    NetworkConfig,
    actor_critic,
    gaussian_policy,
    key_network,
    q_network,
    world_network,
)
from jaxrl_par.networks.plain import described
from jaxrl_par.types import Box, Discrete, Masked, MultiDiscrete, TimeStep, example

SMALL = NetworkConfig(widths=(8,))
VECTOR, INF = Box((4,)), np.inf
PARTS = {"steer": Box((1,)), "brake": Discrete(2)}


def flags(*shape):
    return Box(shape, np.dtype(bool), 0.0, 1.0)


def step_of(obs):
    rows = jax.tree.leaves(obs)[0].shape[0]
    return TimeStep(obs, jnp.zeros(rows, bool), jnp.zeros(rows, bool))


def outputs_of(network, obs):
    step = step_of(obs)
    params = network.init(random.key(0), step)
    carry = network.initial_carry(len(step.first))
    return network.apply(params, carry, step)[0]


@pytest.mark.slow
def shown(mask, rows=3):
    seen = jax.random.normal(random.key(1), (rows, 4))
    return Masked(
        seen, jnp.broadcast_to(jnp.array(mask, bool), (rows, *np.shape(mask)))
    )


def test_a_mask_at_any_depth_is_found_and_what_surrounds_it_is_read():
    inner = {"map": Masked(VECTOR, flags(3)), "place": Discrete(5)}
    spec = with_previous((inner, Discrete(3)))
    assert isinstance(spec, WithPrevious) and masks(spec) == [inner["map"].allowed]
    assert unmasked(spec).obs["map"] is VECTOR
    obs = example(spec, 3)
    obs.obs["map"] = Masked(jnp.ones((3, 4)), jnp.array([[True, False, True]] * 3))
    policy, _ = outputs_of(actor_critic(spec, Discrete(3), SMALL), obs)
    assert np.isneginf(policy.logits[:, 1]).all()
    assert np.isfinite(policy.logits[:, [0, 2]]).all()


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_masked_logits_are_those_of_the_same_network_without(memory):
    """Nothing of the mask is read: the other logits and the values are the same."""
    config = NetworkConfig(widths=(8,), memory=memory, memory_width=8)
    obs = shown([[True, False, True], [False, True, True], [True, True, True]])
    obs = Masked(obs.obs, obs.allowed[0])
    masked = actor_critic(Masked(VECTOR, flags(3)), Discrete(3), config)
    plain = actor_critic(VECTOR, Discrete(3), config)
    (policy, values), (open_, same) = (
        outputs_of(masked, obs),
        outputs_of(plain, obs.obs),
    )
    expected = np.where(obs.allowed, open_.logits, -INF)
    np.testing.assert_array_equal(policy.logits, expected)
    np.testing.assert_array_equal(values, same)
    probabilities = np.exp(policy.log_probs)
    assert (probabilities[~np.array(obs.allowed)] == 0).all()


@pytest.mark.slow
def test_only_what_is_allowed_is_drawn_of_each_choice_and_of_combinations():
    spec = MultiDiscrete([2, 3])
    heads = shown([True, False, False, True, True], rows=400)
    network = actor_critic(Masked(VECTOR, flags(5)), spec, SMALL)
    drawn = outputs_of(network, heads)[0].sample(random.key(0))
    assert {tuple(x) for x in drawn.tolist()} == {(0, 1), (0, 2)}
    pairs = shown([[True, False, False], [False, False, True]], rows=400)
    network = actor_critic(Masked(VECTOR, flags(2, 3)), spec, SMALL)
    policy = outputs_of(network, pairs)[0]
    assert {tuple(x) for x in policy.sample(random.key(0)).tolist()} == {(0, 0), (1, 2)}
    np.testing.assert_allclose(policy.entropy(), 0.6931, atol=1e-2)


def test_a_head_without_anything_to_choose_stays_within_its_own():
    """S2: the final observation of a game. The head of two never draws the third."""
    network = actor_critic(Masked(VECTOR, flags(5)), MultiDiscrete([2, 3]), SMALL)
    policy = outputs_of(network, shown([False] * 5, rows=400))[0]
    drawn = policy.sample(random.key(0))
    assert drawn.max(axis=0).tolist() == [1, 2]
    np.testing.assert_allclose(policy.entropy(), np.log(6), rtol=1e-5)


@pytest.mark.slow
def test_a_mask_by_name_is_of_its_part():
    spec = Masked(VECTOR, {"brake": flags(2)})
    obs = Masked(jnp.zeros((3, 4)), {"brake": jnp.array([[False, True]] * 3)})
    policy, _ = outputs_of(actor_critic(spec, PARTS, SMALL), obs)
    action = policy.sample(random.key(0))
    assert action["brake"].tolist() == [1, 1, 1] and action["steer"].shape == (3, 1)


def test_dueling_takes_the_mean_over_what_is_allowed():
    """S6, too: no value is multiplied by a mask."""
    spec, mask = Masked(VECTOR, flags(3)), [[True, False, True]] * 2 + [[False] * 3]
    network = q_network(spec, Discrete(3), SMALL, dueling=True)
    obs = Masked(jnp.ones((3, 4)), jnp.array(mask))
    step = step_of(obs)
    params = network.init(random.key(0), step)
    told, _ = network.with_features(params, (), jax.tree.map(lambda x: x[None], step))
    (values, features), head = told, params["params"]
    advantages = features[0] @ head["q_values"] + head["q_values_bias"]
    state = features[0] @ head["state_value"] + head["state_value_bias"]
    mean = advantages[:, [0, 2]].mean(1, keepdims=True)
    expected = (advantages + state - mean)[:2, [0, 2]]
    np.testing.assert_allclose(values[0, :2, [0, 2]].T, expected, rtol=1e-5)
    assert np.isneginf(values[0, :2, 1]).all() and np.isneginf(values[0, 2]).all()


@pytest.mark.slow
def test_atoms_of_what_is_not_allowed_are_all_impossible():
    network = q_network(Masked(VECTOR, flags(2)), Discrete(2), SMALL, num_atoms=4)
    values = outputs_of(network, shown([True, False]))
    assert np.isneginf(values[:, 1]).all() and np.isfinite(values[:, 0]).all()


def test_exploration_keeps_to_the_mask():
    """S4: (0, 0.95, 0.05)."""
    values = jnp.array([-INF, 1.0, 0.0])
    found = exploration.epsilon_greedy_probabilities(values, 0.1)
    np.testing.assert_allclose(found, [0.0, 0.95, 0.05], rtol=1e-6)


def test_a_logit_below_all_others_does_not_hide_behind_a_mask():
    """S6: logits (-1, -2, 4), mask (1, 1, 0): (0.7311, 0.2689, 0)."""
    network = actor_critic(Masked(VECTOR, flags(3)), Discrete(3), SMALL)
    step = step_of(shown([True, True, False]))
    params = network.init(random.key(0), step)
    head = params["params"]["_Heads_0"]
    head |= {"policy": 0 * head["policy"], "policy_bias": jnp.array([-1.0, -2.0, 4.0])}
    (policy, _), _ = network.apply(params, (), step)
    expected = [0.7311, 0.2689, 0.0]
    np.testing.assert_allclose(np.exp(policy.log_probs)[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("mask", "action", "told"),
    [
        (flags(4), Discrete(3), r"booleans \[3\], got bool \[4\]"),
        (Box((3,)), Discrete(3), r"booleans \[3\], got float32 \[3\]"),
        (flags(2), MultiDiscrete([2, 2]), r"\[2, 2\], one of all combinations, got"),
        (flags(1), Box((1,)), "actions that can be counted, not of Box"),
        (flags(2), PARTS, "a dict of the masks of some of them"),
        ({"break": flags(2)}, PARTS, r"\['brake', 'steer'\] is a dict"),
    ],
)
def test_masks_that_do_not_fit_are_refused_with_their_shape(mask, action, told):
    with pytest.raises(RefusedError, match=told):
        actor_critic(Masked(VECTOR, mask), action, SMALL)


def test_two_masks_are_refused_and_so_are_those_that_nobody_reads():
    twice = {"a": Masked(VECTOR, flags(3)), "b": Masked(VECTOR, flags(3))}
    with pytest.raises(RefusedError, match="has one mask of actions, got 2"):
        actor_critic(twice, Discrete(3), SMALL)
    masked = Masked(VECTOR, flags(1))
    with pytest.raises(RefusedError, match="nothing here would keep to"):
        gaussian_policy(masked, Box((1,), low=-1.0, high=1.0), SMALL)
    with pytest.raises(RefusedError, match="observations are"):
        world_network(Masked(VECTOR, flags(2)), Discrete(2), SMALL)
    with pytest.raises(RefusedError, match="a single Discrete action"):
        q_network(VECTOR, MultiDiscrete([2, 2]), SMALL)
    assert outputs_of(key_network(masked, Discrete(1), SMALL), shown([True])).ndim == 2


def test_rows_without_an_action_are_found_for_every_kind_of_mask():
    zeros = np.zeros((2, 5), bool)
    one = zeros.copy()
    one[0, 0] = True
    assert none_allowed(Discrete(5), one).tolist() == [False, True]
    spec = MultiDiscrete([2, 3])
    assert none_allowed(spec, one).tolist() == [True, True]  # the second has nothing
    one[0, 2] = True
    assert none_allowed(spec, one).tolist() == [False, True]
    pairs = np.zeros((2, 2, 3), bool)
    pairs[1, 1, 2] = True
    assert none_allowed(spec, pairs).tolist() == [True, False]
    assert none_allowed(PARTS, {"brake": zeros[:, :2]}).tolist() == [True, True]


def test_a_description_says_what_is_a_mask_and_names_all_parts():
    action = PARTS | {"gear": MultiDiscrete([2, 3], start=[0, -1])}
    spec = Masked({"a": VECTOR}, {"brake": flags(2)})
    told = described(spec, action, SMALL)
    kinds = [(x["name"], x["kind"], x.get("of")) for x in told["observations"]]
    assert kinds == [
        ("obs.obs['a']", "box", None),
        ("obs.allowed['brake']", "mask", "action['brake']"),
    ]
    parts = told["action"]["parts"]
    names = [(x["name"], x["kind"]) for x in parts]
    assert names == [
        ("action['brake']", "discrete"),
        ("action['gear']", "multi_discrete"),
        ("action['steer']", "box"),
    ]
    assert parts[1]["nvec"] == [2, 3] and parts[1]["start"] == [0, -1]
    plain = actor_critic(spec, action, SMALL).plain
    assert plain is not None and plain.whole
