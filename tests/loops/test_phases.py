"""Phases: from which rollouts, when, at which rate, and with whose parameters."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxrl_par import presets, random
from jaxrl_par.agents import TrainState, stepped
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import passed
from jaxrl_par.loops import PhasesConfig, epochs, learner_of, phasic
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.training import TrainingConfig
from jaxrl_par.training.checkpoints import state_hash
from jaxrl_par.types import Agent, Info, Mean, TimeStep, Trajectory

STEP = TimeStep(*3 * [jnp.zeros(1, jnp.bool_)])
ROWS = 2
RATE_OF_ONE = OptimizerConfig("sgd", learning_rate=1.0, max_grad_norm=1e9)


def rollout(reward):
    """Rows of one environment, all with the same reward."""
    flags = jnp.zeros((ROWS + 1, 1), jnp.bool_)
    row = jnp.full((ROWS, 1), reward, jnp.float32)
    return Trajectory(TimeStep(flags, flags, flags), row, row, row, {}, ())


def falling(optimizer, slope):
    """An agent of one number, whose gradient is `slope(batch)`."""

    def init(key, step):
        params = {"x": jnp.float32(0)}
        return TrainState(params, optimizer.init(params))

    def grad(state, batch, key, axis):
        steepness = slope(batch)
        told = {"slope": Mean(steepness, jnp.float32(1))}
        return {"x": steepness}, Info(told)

    def apply(state, grads, metrics):
        return TrainState(*stepped(optimizer, *state, grads))

    def act(params, carry, step, key):
        return jnp.zeros(step.first.shape[0], jnp.int32), carry, {}

    return Agent(init, lambda number: (), act, grad, apply, act)


def learned(learner, rewards, state=None, data=None):
    """States, data and metrics after each rollout."""
    if state is None:
        state = learner.init(random.key(0), STEP)
        data = learner.start(jax.eval_shape(rollout, 0.0))
    learn = jax.jit(learner.learn, static_argnums=4)
    found = []
    for reward in rewards:
        given = rollout(reward)
        state, data, metrics = learn(state, data, given, random.key(1), Axis())
        state = passed(state, given.env_steps)
        found.append((state, data, metrics))
    return found


def positions(found):
    return [float(state.auxiliary.params["x"]) for state, _, _ in found]


@cache
def of_slope_one(num_epochs=1):
    """Auxiliary phases go down by the rate; the policy stays."""
    optimizer = make_optimizer(RATE_OF_ONE, total_env_steps=8 * ROWS)
    stays = falling(optax.sgd(0.0), lambda batch: jnp.float32(0))
    policy = epochs(stays, num_epochs) if num_epochs > 1 else learner_of(stays)
    phase = falling(optimizer, lambda batch: jnp.float32(1))
    config = PhasesConfig(num_rollouts=2, num_epochs=1, num_minibatches=1)
    return phasic(policy, phase, lambda params, given: given.reward, config)


@pytest.mark.parametrize("num_epochs", [1, 3])
def test_a_phase_has_the_rate_of_its_last_rollout(num_epochs):
    """Trap P23: of eight, an auxiliary phase after every second. Rollouts count, and
    not the passes over them."""
    before = [0.0, *positions(learned(of_slope_one(num_epochs), 8 * [0.0]))]
    rates = -np.diff(before)
    expected = [0, 0.875, 0, 0.625, 0, 0.375, 0, 0.125]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def of_all_rewards(num_rollouts):
    """The slope is the sum of the targets that a phase sees."""
    seen = falling(optax.sgd(1.0), lambda batch: jnp.sum(batch.extras["target"]))
    policy = learner_of(falling(optax.sgd(1.0), lambda batch: jnp.float32(-0.5)))
    config = PhasesConfig(num_rollouts, num_epochs=1, num_minibatches=1)
    # By the parameters that acted: those before the policy's step of 0.5.
    return phasic(
        policy, seen, lambda params, given: given.reward + params["x"], config
    )


def test_a_phase_sees_all_its_rollouts_and_no_others():
    """Written out, with targets of the parameters that acted. Steps of the policy go on
    from what the phase left, and what acts is the newest."""
    rewards, x, seen, expected = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0], 0.0, [], []
    for i, reward in enumerate(rewards):
        seen.append(ROWS * (reward + x))
        x += 0.5
        if i % 3 == 2:
            x, seen = x - sum(seen), []
        expected.append(x)
    found = learned(of_all_rewards(3), rewards)
    np.testing.assert_allclose(positions(found), expected, rtol=1e-6)
    counts = [float(metrics["auxiliary_slope"].count) for _, _, metrics in found]
    assert counts == [0, 0, 1, 0, 0, 1]
    learner = of_all_rewards(3)
    assert float(learner.params(found[-1][0])["x"]) == positions(found)[-1]


def test_a_run_that_goes_on_within_a_phase_sees_what_was_before():
    """Trap P23: stopped at 2 of 3, the phase sees 3 rollouts, and not 1."""
    learner, rewards = of_all_rewards(3), [1.0, 2.0, 4.0, 8.0]
    whole = learned(learner, rewards)
    # What a run saves is its learner's state and its data.
    state, data = jax.device_get(learned(learner, rewards[:2])[-1][:2])
    rest = learned(learner, rewards[2:], state, data)
    assert positions(rest) == positions(whole)[2:]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"num_rollouts": 0}, "num_rollouts must be at least 1, got 0"),
        ({"num_epochs": 0}, "num_epochs must be at least 1, got 0"),
        ({"num_minibatches": -1}, "num_minibatches must be at least 1, got -1"),
    ],
)
def test_counts_below_one_are_refused(options, problem):
    agent = falling(optax.sgd(0.0), lambda batch: jnp.float32(0))
    with pytest.raises(ValueError, match=problem):
        phasic(learner_of(agent), agent, lambda *_: None, PhasesConfig(**options))


SMALL = {
    "num_envs": 4,
    "unroll_length": 8,
    "num_minibatches": 2,
    "network": NetworkConfig(widths=(8,)),
    "optimizer": OptimizerConfig(anneal=False),
    "auxiliary_optimizer": OptimizerConfig(anneal=False),
    "phases": PhasesConfig(num_rollouts=3, num_epochs=2, num_minibatches=2),
}


@pytest.mark.slow
def test_a_run_resumes_within_a_phase_to_the_same_bits(tmp_path):
    """From its files: stopped after 4 of 6 rollouts, one of them in a new phase."""
    experiment = presets.get("ppg")

    def run(name, steps, **options):
        settings = TrainingConfig(
            runs_dir=str(tmp_path), name=name, log_interval=1, gif=False,
            tensorboard=False, evaluation_envs=2, evaluation_episodes=1, **options,
        )  # fmt: skip
        args = experiment.config(training=settings, total_steps=steps, **SMALL)
        assert not args.problems()
        return experiment.run(args)

    whole = run("whole", 170)
    run("parts", 110)
    resumed = run("parts", 170, resume=True)
    assert whole.summary.updates == resumed.summary.updates == 6
    assert state_hash(whole.run) == state_hash(resumed.run)


@pytest.mark.slow
def test_a_phase_on_two_devices_is_that_of_the_joint_batch():
    """With one pass of one minibatch, which has no order."""
    env_of = probes.counter
    experiment = presets.get("ppg")
    sgd = OptimizerConfig("sgd", learning_rate=0.1, anneal=False)
    config = replace(SMALL["phases"], num_epochs=1, num_minibatches=1)
    made = {"optimizer": sgd, "auxiliary_optimizer": sgd, "phases": config}
    args = experiment.config(**SMALL | made | {"num_epochs": 1, "num_minibatches": 1})
    learner = experiment.make_agent(args, env_of(1).specs, args.make_optimizer())
    greedy = learner._replace(actor=learner.actor._replace(act=deterministic(learner)))

    def params(program):
        run, _ = jax.jit(scanned(program, 3))(jax.jit(program.init)(random.key(0)))
        return np.asarray(ravel_pytree(run.learner.auxiliary.params)[0])

    alone = params(compiled(greedy, env_of(4), 8))
    program = compiled(greedy, env_of(2), 8, axis=Axis("data"))
    several = params(sharded(program, data_mesh(2)))
    assert np.linalg.norm(alone - several) <= 1e-5 * np.linalg.norm(alone)


def deterministic(learner):
    """Acts by the parity of the row, so that all devices see the same."""

    def act(params, carry, step, key):
        _, carry, extras = learner.actor.act(params, carry, step, key)
        action = (step.obs[..., 0] % 2).astype(jnp.int32)
        return action, carry, extras

    return act
