"""One of each learner of the library, for the tests that go through all of them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from jaxrl_par import loops
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.actor_critic import (
    CriticConfig,
    DDPGConfig,
    NAFConfig,
    SACConfig,
    TD3Config,
    critic_of,
    naf,
    sac,
    td3,
)
from jaxrl_par.algorithms.distilled import distilled
from jaxrl_par.algorithms.dqn import DQNConfig, dqn
from jaxrl_par.algorithms.episodic import MFECConfig, NECConfig, mfec, nec
from jaxrl_par.algorithms.episodic.mfec import episodes_kept
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.algorithms.policy_distillation import FixedTeacher, policy_distillation
from jaxrl_par.algorithms.ppg import auxiliary, value_targets
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.algorithms.pulling import pulling_at_starts
from jaxrl_par.algorithms.q_learning import QConfig, q_learning
from jaxrl_par.algorithms.qt_opt import (
    CEMConfig,
    QTOptConfig,
    labelled,
    nets_of,
    qt_opt,
)
from jaxrl_par.algorithms.reinforce import reinforce
from jaxrl_par.algorithms.trust_region import QPropConfig, TRPOConfig, q_prop, trpo
from jaxrl_par.algorithms.vmpo import vmpo
from jaxrl_par.algorithms.world_model import WorldModelConfig, world_model
from jaxrl_par.axis import Axis
from jaxrl_par.envs import Environment
from jaxrl_par.loops import Learner
from jaxrl_par.networks import (
    Network,
    NetworkConfig,
    action_value,
    actor_critic,
    candidate_values,
    deterministic_policy,
    gaussian_policy,
    key_network,
    normalised_advantage,
    policy_network,
    q_network,
    separate,
    world_network,
)
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.replay import (
    PriorityConfig,
    Windows,
    mixed,
    prioritised,
    uniform,
    without_carry,
)
from jaxrl_par.types import Agent, TimeStep, Trajectory, example

# Annealed, so that a topology that counts other environment steps has other rates.
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=0.1), total_env_steps=64)


def network(env: Environment, memory: str = "none") -> Network:
    """A small actor-critic of an environment."""
    config = NetworkConfig(widths=(4,), memory=memory, memory_width=4)  # pyright: ignore
    return actor_critic(env.observation_spec, env.action_spec, config)


def q_agent(env: Environment, method: str) -> Agent:
    """One of the methods of Q-learning, with a small network."""
    config = QConfig(method=method, target_period=2)  # pyright: ignore
    small = NetworkConfig(widths=(4,))
    values = q_network(env.observation_spec, env.action_spec, small)
    return q_learning(values, OPTIMIZER, config)


def distillation(env: Environment) -> Learner:
    """An LSTM teaches a network without memory."""
    small, large = network(env), network(env, "lstm")
    return loops.distillation(
        distilled(small, OPTIMIZER),
        impala(large, OPTIMIZER, ImpalaConfig(behaviour_cost=0.1)),
        loops.Teacher(large.initial_carry, large.unroll),
        loops.DistillationConfig(updates_per_step=2, batch_size=3, capacity=4),
    )


def imitation(env: Environment) -> Learner:
    """A student that acts, of a teacher with random parameters, from a small replay."""
    specs, small = (env.observation_spec, env.action_spec), NetworkConfig(widths=(4,))
    agent = a2c(network(env), OPTIMIZER)
    _, step = env.reset(jax.random.key(3))
    params = agent.init(jax.random.key(4), step).params
    teacher = FixedTeacher(agent, params, specs, "a2c")
    student = policy_distillation(policy_network(*specs, small), OPTIMIZER, [teacher])
    return loops.replayed(student, uniform(4, 3, Windows(1, constant_carry=True)))


def ppg(env: Environment) -> Learner:
    """An auxiliary phase after every second rollout."""
    actor, critic = network(env), network(env)
    both = separate(actor, critic)
    policy = loops.epochs(ppo(both, OPTIMIZER), 1, 2)
    phase = auxiliary(actor, critic, OPTIMIZER)
    config = loops.PhasesConfig(num_rollouts=2, num_epochs=2, num_minibatches=2)
    return loops.phasic(policy, phase, value_targets(both, 0.9, 0.9), config)


def trpo_of_few_steps(env: Environment) -> Agent:
    """Steps that are long, so that some are halved, and values of two steps."""
    actor = policy_network(*env.specs, NetworkConfig(widths=(4,)))
    config = TRPOConfig(delta=0.1, cg_steps=3, value_steps=2)
    return trpo(actor, network(env), OPTIMIZER, config)


def replayed_q(env: Environment) -> Learner:
    """Q-learning from a small replay."""
    buffer = uniform(4, 3, Windows(1, constant_carry=True), min_size=3)
    return loops.replayed(q_agent(env, "q"), buffer)


def prioritised_dqn(env: Environment) -> Learner:
    """Ape-X from a small replay: windows look ahead beyond their unrolls, and their
    first priorities are of whoever acted."""
    specs = (env.observation_spec, env.action_spec)
    net = q_network(*specs, NetworkConfig(widths=(4,)), dueling=True)
    config = DQNConfig(
        n_step=2, target_period=2, exploration="ladder", record_priority=True
    )
    agent = dqn(net, OPTIMIZER, config)
    windows = Windows(1, lookahead=1, constant_carry=True)
    recorded = PriorityConfig(first="recorded")
    return loops.replayed(agent, prioritised(4, 3, windows, recorded, min_size=3))


def r2d2(env: Environment) -> Learner:
    """Quantiles of an LSTM, from prioritised sequences that are burned in."""
    config = NetworkConfig(widths=(4,), memory="lstm", memory_width=4)
    specs = (env.observation_spec, env.action_spec)
    net = q_network(*specs, config, dueling=True, num_atoms=3)
    told = {"record_carry": True, "measure_staleness": True, "target_period": 2}
    told |= {"values": "quantile", "num_atoms": 3, "rescale": 1e-3}
    config = DQNConfig(n_step=2, burn_in=1, **told)
    agent = dqn(net, OPTIMIZER, config)
    return loops.replayed(agent, prioritised(4, 3, Windows(1, 1, 1), min_size=3))


def demonstrated_dqn(env: Environment) -> Learner:
    """DQN with memory from demonstrations too, whose windows burn in."""
    specs = (env.observation_spec, env.action_spec)
    small = NetworkConfig(widths=(4,), memory="lstm", memory_width=4)
    config = DQNConfig(target_period=2, burn_in=1, record_carry=True)
    agent = dqn(q_network(*specs, small), OPTIMIZER, config)
    obs, action = (jax.tree.map(_rows, example(x, 3)) for x in specs)
    flags, numbers = np.zeros((6, 3), bool), np.arange(15, dtype=np.float32)
    numbers = numbers.reshape(5, 3) / 16
    steps = TimeStep(obs, flags, flags)
    given = Trajectory(steps, action[:-1], numbers, np.ones((5, 3), np.float32), {}, ())
    buffer = mixed(
        given, 4, 3, Windows(1, burn_in=1), PriorityConfig(), ratio=1 / 2,
        initial_carry=agent.initial_carry, min_size=3,
    )  # fmt: skip
    return loops.replayed(agent, buffer)


def replayed_sac(env: Environment) -> Learner:
    """SAC of two steps from a small replay, after uniform actions."""
    small = NetworkConfig(widths=(4,))
    policy, critic = gaussian_policy(*env.specs, small), action_value(*env.specs, small)
    config = SACConfig(n_step=2, target_rate=0.1, warm_up=4)
    agent = sac(policy, critic, env.action_spec, OPTIMIZER, config)
    windows = Windows(1, lookahead=1, constant_carry=True)
    return loops.replayed(agent, uniform(4, 3, windows, min_size=3))


def replayed_td3(env: Environment) -> Learner:
    """TD3, whose policy is improved in every second update, from a small replay."""
    return _deterministic(env, TD3Config(target_rate=0.1, warm_up=4), PriorityConfig())


def apex_dpg(env: Environment) -> Learner:
    """DDPG with a ladder of noise, whose first priorities are of whoever acted."""
    given = {"exploration": "ladder", "record_priority": True, "warm_up": 0}
    config = DDPGConfig(n_step=2, target_rate=0.1, **given)
    return _deterministic(env, config, PriorityConfig(first="recorded"))


def replayed_qt_opt(env: Environment) -> Learner:
    """QT-Opt that labels its own batches, from a small replay."""
    return loops.replayed(_qt_opt(env), uniform(4, 3, Windows(1), min_size=3))


def labelled_qt_opt(env: Environment) -> Learner:
    """QT-Opt from rows that two Bellman updaters have labelled, in turns."""
    nets = nets_of(candidate_values(*env.specs, _NARROW), env.action_spec, _SEARCHED)
    return loops.labelling(
        _qt_opt(env),
        lambda copies, batch, key: labelled(copies, batch, key, Axis(), nets),
        lambda state: state.copies,
        uniform(4, 3, Windows(1), min_size=3),
        loops.LabellingConfig(2, batch_size=3, poll_interval=2, capacity=12),
        batch_size=3,
        updates_per_step=2,
    )


_NARROW = NetworkConfig(widths=(4,))
_SEARCHED = QTOptConfig(target_rate=0.1, delay=2, cem=CEMConfig(8, 2))


def _qt_opt(env: Environment) -> Agent:
    values = candidate_values(*env.specs, _NARROW)
    return qt_opt(values, env.action_spec, OPTIMIZER, _SEARCHED)


def replayed_naf(env: Environment) -> Learner:
    """NAF that explores by the shape of its values."""
    agent = _naf(env, exploration="covariance", warm_up=4)
    return loops.replayed(
        agent, uniform(4, 3, Windows(1, constant_carry=True), min_size=3)
    )


def pulling_naf(env: Environment) -> Learner:
    """NAF of two steps, whose process of noise and parameters are in its carry; first
    priorities are of whoever acted."""
    agent = pulling_at_starts(_naf(env, n_step=2, record_priority=True, warm_up=0))
    windows, recorded = Windows(1, lookahead=1), PriorityConfig(first="recorded")
    buffer = without_carry(prioritised(4, 3, windows, recorded, min_size=3))
    return loops.replayed(agent, buffer)


def _naf(env: Environment, **options: Any) -> Agent:
    values = normalised_advantage(*env.specs, NetworkConfig(widths=(4,)))
    config = NAFConfig(target_rate=0.1, **options)
    return naf(values, env.action_spec, OPTIMIZER, config)


def q_prop_of_few_steps(env: Environment) -> Learner:
    """A trust region, with a critic from a small replay as control variate."""
    small = NetworkConfig(widths=(4,))
    actor, critic = policy_network(*env.specs, small), action_value(*env.specs, small)
    config = QPropConfig(delta=0.1, cg_steps=3, value_steps=2, variant="adaptive")
    policy = q_prop(actor, network(env), OPTIMIZER, config)
    own = CriticConfig(target_rate=0.1)
    made = critic_of(actor, critic, env.action_spec, OPTIMIZER, own)
    buffer = uniform(4, 3, Windows(1), min_size=3)
    learner = loops.replayed(made.agent, buffer, updates_per_step=2)

    def tell(state, own, trajectory):
        (acted, _), _ = actor.unroll(own.params["actor"], (), trajectory.rows)
        return {"slope": made.slope(state.critics, trajectory.rows, acted.mode())}

    return loops.judged(policy, learner, tell, lambda own: own.params["actor"])


def _deterministic(
    env: Environment, config: TD3Config, priorities: PriorityConfig
) -> Learner:
    small = NetworkConfig(widths=(4,))
    policy = deterministic_policy(*env.specs, small)
    critic = action_value(*env.specs, small)
    agent = td3(policy, critic, env.action_spec, OPTIMIZER, config)
    windows = Windows(1, lookahead=config.n_step - 1, constant_carry=True)
    return loops.replayed(agent, prioritised(4, 3, windows, priorities, min_size=3))


def imagining_dqn(env: Environment) -> Learner:
    """DQN of two steps, and branches of an ensemble that is believed at once."""
    small, sgd = NetworkConfig(widths=(4,)), optax.sgd(0.1)
    agent = dqn(q_network(*env.specs, small), sgd, DQNConfig(n_step=2))
    # Members are a batch of products, which under `vmap` are rounded in another way,
    # and Adam would enlarge that.
    config = WorldModelConfig(
        num_members=2, held_out=0.4, believed_below=1e9, min_updates=1
    )
    model = world_model(world_network(*env.specs, small), sgd, config)
    imagination = loops.ImaginationConfig(0.3, branches=3, horizon=3, curiosity=0.1)
    windows = Windows(1, lookahead=1, constant_carry=True)
    both = loops.dyna(agent, model, imagination)
    return loops.replayed(both, prioritised(4, 3, windows, min_size=3))


def episodic_mfec(env: Environment) -> Learner:
    """The best returns of episodes that end in other unrolls than they begin in."""
    config = MFECConfig(capacity=64, num_neighbours=3)
    longest = env.max_episode_steps or 8
    kept = episodes_kept(env.observation_spec, config, longest, 8)
    return loops.remembering(mfec(*env.specs, config), loops.Remember(*kept))


def episodic_nec(env: Environment) -> Learner:
    """A table that follows gradients from a small replay."""
    network = key_network(*env.specs, NetworkConfig(widths=(4,)), width=3)
    config = NECConfig(capacity=64, num_neighbours=3, n_step=2)
    buffer = uniform(4, 3, Windows(1, lookahead=1), min_size=3)
    learner = loops.replayed(nec(network, OPTIMIZER, config), buffer)
    return learner._replace(halves=None)


def _rows(x: jax.Array) -> np.ndarray:
    """Six of them, [6, B, ...]."""
    return np.stack([np.asarray(x)] * 6)


LEARNERS: dict[str, Callable[[Environment], Agent | Learner]] = {
    "a2c, normalised": lambda env: normalize_observations(a2c(network(env), OPTIMIZER)),
    "impala, lstm": lambda env: impala(network(env, "lstm"), OPTIMIZER),
    "ppo": lambda env: loops.epochs(ppo(network(env), OPTIMIZER), 2, 2),
    "v-mpo": lambda env: vmpo(network(env), OPTIMIZER),
    "trpo": trpo_of_few_steps,
    "reinforce": lambda env: reinforce(network(env), OPTIMIZER),
    "n-step q-learning": lambda env: q_agent(env, "n_step"),
    "dqn, prioritised": prioritised_dqn,
    "dyna": imagining_dqn,
    "r2d2, quantiles": r2d2,
    "dqn, lstm, mixed": demonstrated_dqn,
    "mfec": episodic_mfec,
    "nec": episodic_nec,
    "distillation": distillation,
    "policy distillation": imitation,
    "ppg": ppg,
    "chain": lambda env: loops.chain(
        acts="q", q=replayed_q(env), policy=a2c(network(env), OPTIMIZER)
    ),
}
CONTINUOUS: dict[str, Callable[[Environment], Agent | Learner]] = {
    "sac": replayed_sac,
    "td3, prioritised": replayed_td3,
    "ape-x dpg": apex_dpg,
    "qt-opt": replayed_qt_opt,
    "qt-opt, updaters": labelled_qt_opt,
    "naf": replayed_naf,
    "naf, pulling": pulling_naf,
    "q-prop": q_prop_of_few_steps,
}
"""Those that take bounded real numbers alone."""
