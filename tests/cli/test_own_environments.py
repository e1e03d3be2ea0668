"""Environments of a script's own: under a name that nobody has registered."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from jaxrl_par import cli, presets, random
from jaxrl_par.envs import host
from jaxrl_par.errors import RefusedError
from jaxrl_par.testing import probes
from jaxrl_par.training import TrainingConfig

spaces = pytest.importorskip("gymnasium.spaces")


class Arm:
    """Three steps, of which each pays one."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(2, np.float32), 1.0, self.time == 3, False, {}

    def close(self):
        pass


def arms(num_envs: int, seed: int) -> host.HostEnvironment:
    return host.from_callable(Arm, num_envs, seed, name="arms")


ARM = presets.get("a2c").on("My/Arm", simulators=arms)
CHAIN = presets.get("a2c").on("Chain", environments=probes.observation_reward)


def small(experiment, tmp_path, **options):
    settings = TrainingConfig(
        runs_dir=str(tmp_path), log_interval=1, gif=False, tensorboard=False,
        evaluation_envs=2, evaluation_episodes=1,
    )  # fmt: skip
    args = experiment.config(
        num_envs=4, unroll_length=4, training=settings, **options
    )  # fmt: skip
    return replace(args, total_steps=args.rows_per_update + 1)


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["threads", "workers"])
def test_a_simulator_of_ones_own_trains_under_its_name(topology, tmp_path):
    args = small(ARM, tmp_path, topology=topology)
    assert args.problems() == [] and not args.is_pure
    with pytest.raises(RefusedError, match=r"evaluation_max_steps: My/Arm has no time"):
        ARM.run(args)
    bounded = replace(args.training, evaluation_max_steps=10)
    args = replace(args, training=bounded)
    trained = ARM.run(args)
    assert trained.summary.evaluation["sampled_return"] == 3
    assert trained.directory.path.name == "test_own_environments-My-Arm"
    config = json.loads(trained.directory.config.read_text())
    assert config["env_name"] == "My/Arm"
    assert config["provenance"]["experiment"] == __name__


def test_a_pure_environment_of_ones_own_runs_on_every_topology():
    for topology in cli.Args.topologies:
        args = CHAIN.config(topology=topology, num_envs=8)
        assert args.problems() == [] and args.is_pure
        placed = cli.place(args, cli.compose(args, CHAIN.make_agent))
        if topology in ("threads", "workers"):
            placed.close()
    shown = CHAIN.config(show_previous=True)
    assert shown.make_env(2).observation_spec.reward is not None
    assert shown.make_host_env(random.key(0), 2).num_envs == 2


def test_what_is_for_environments_by_name_is_refused():
    told = "is for environments by name, and this script has its own: leave it out, got"
    args = ARM.config(topology="threads", env_name="CartPole-v1", backend="envpool")
    assert args.problems() == [
        f"env_name {told} CartPole-v1",
        f"backend {told} envpool",
    ]
    (problem,) = ARM.config().problems()
    assert problem == (
        "env_name: My/Arm is a simulator's, which topology = compiled cannot compile:"
        " take threads or workers"
    )
    with pytest.raises(RefusedError, match="environments or simulators"):
        presets.get("a2c").on("x")


def test_a_subclass_says_the_same():
    @dataclass(frozen=True)
    class Args(cli.Args):
        env_name: str = "Arm"
        simulators: ClassVar = staticmethod(arms)

    args = Args(topology="threads", show_previous=True)
    assert args.problems() == [] and not args.is_pure
    env = args.make_host_env(random.key(0))
    assert env.num_envs == 16 and env.name == "arms"
    env.close()


def test_its_help_and_options_are_those_of_the_experiment(capsys):
    assert ARM.name == __name__
    args = cli.parse(CHAIN.config, ["--a2c.gamma", "0.5", "--num-envs", "4"])
    assert args.a2c.gamma == 0.5 and args.env_name == "Chain"
    with pytest.raises(SystemExit):
        cli.parse(CHAIN.config, ["--help"])
    told = capsys.readouterr().out
    assert "Batched advantage actor-critic" in told and "(default: Chain)" in told
    assert "Environments of all devices, actors, workers or" in told
