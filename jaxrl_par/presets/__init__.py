"""Experiments with a name: `jaxrl-par ppo`, `experiments/ppo.py`, `get("ppo")`.

Each is a module that no other needs, imported when it is asked for: its `Args`, what
makes its agent, and `EXPERIMENT`, both as one value.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from jaxrl_par.errors import unknown_name
from jaxrl_par.exit_codes import ended_at_once
from jaxrl_par.kept import run_or_help

if TYPE_CHECKING:
    from jaxrl_par.cli import Experiment

SUMMARIES = {
    "impala": "IMPALA with V-trace, in several passes: Breakout-MinAtar",
    "impala_threads": "IMPALA with actor threads, for simulators: LunarLander-v3",
    "ppo": "PPO: CartPole-v1",
    "ppo_threads": "PPO with actor threads in lockstep: LunarLander-v3",
    "seed": "SEED RL, IMPALA with an LSTM and central inference: LunarLander-v3",
    "a2c": "batched A2C, n-step or GAE: CartPole-v1",
    "a3c": "A3C, A2C on asynchronous workers: CartPole-v1",
    "async_q": "asynchronous Q-learning, SARSA and n-step Q: CartPole-v1",
    "dqn": "DQN from replay, prioritised if asked: CartPole-v1",
    "apex": "Ape-X, DQN that waits for no actor: LunarLander-v3",
    "r2d2": "R2D2, DQN with memory from replayed sequences: MemoryChain-30",
    "gorila": "Gorila, DQN on bundles of actor, replay and learner: CartPole-v1",
    "r2d3": "R2D3, R2D2 that has demonstrations too: IMaze-21x21",
    "sac": "SAC, an actor-critic whose entropy has a price: Pendulum-v1",
    "td3": "TD3, twin critics and a delayed policy: Pendulum-v1",
    "ddpg": "DDPG, a deterministic policy; on actors Ape-X DPG: Pendulum-v1",
    "dyna": "deep Dyna-Q, DQN that imagines with a learned model: CartPole-v1",
    "qt_opt": "QT-Opt, whose best actions are searched for: Grasping-16x16",
    "naf": "NAF, Q-learning with a quadratic advantage: Pendulum-v1",
    "reinforce": "sample-parallel policy gradient, of whole episodes: CartPole-v1",
    "maml": "MAML, first-order MAML and Reptile, of REINFORCE: Navigation",
    "es": "evolution strategies, of perturbed parameters: CartPole-v1",
    "gps": "guided policy search, controllers that teach a policy: Door-60",
    "rl2": "RL^2, memory that learns how to learn a task: Bandits-5x10",
    "episodic_control": "MFEC and NEC, values of what was most alike: Catch-bsuite",
    "policy_distillation": "a small network learns from agents: Breakout-MinAtar",
    "ppg": "PPG, PPO whose values teach its policy's features: CartPole-v1",
    "q_prop": "Q-Prop, TRPO that a critic from replay helps: Pendulum-v1",
    "trpo": "TRPO, steps as far as a KL divergence allows: CartPole-v1",
    "actor_learner_distillation": "a transformer learns, an LSTM acts: IMaze-9x9",
    "pbt": "population-based training of A2C in one program: Breakout-MinAtar",
    "sweep": "a grid or random search of A2C in one program: CartPole-v1",
}
"""What each runs, and where by default."""


def get(name: str) -> "Experiment":
    """The experiment of that name.

    Raises:
      RefusedError: there is none.
    """
    if name not in SUMMARIES:
        raise unknown_name("experiment", name, SUMMARIES)
    return import_module(f"jaxrl_par.presets.{name}").EXPERIMENT


def launch(
    name: str, argv: Sequence[str] | None = None, program: str | None = None
) -> None:
    """Runs the experiment of that name with the settings of the command line.

    Args:
      argv, program: as for `cli.launch`.

    Raises:
      RefusedError: there is none.
      SystemExit: as `cli.launch`. A signal ends the process with its code from here on.
    """
    argv = sys.argv[1:] if argv is None else argv
    called = program or Path(sys.argv[0]).name

    def run() -> None:
        import_module("jaxrl_par.cli").launch(get(name), argv, called)

    with ended_at_once():
        run_or_help(run, argv, name, called)
