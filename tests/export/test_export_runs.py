"""What acts in a run that was trained is what its exported actor does."""

import jax
import numpy as np
import pytest
from exported import sample
from short_runs import trained

from jaxrl_par import random, training
from jaxrl_par.cli import export as command
from jaxrl_par.export import ExportError
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.numpy_actor import Actor
from jaxrl_par.types import Box, TimeStep

B = 3
NETWORKS = {
    "critic with a memory": NetworkConfig(
        widths=(8,), memory="lstm", memory_width=4, shared=False
    ),
    "gtrxl": NetworkConfig(widths=(8,), memory="gtrxl", memory_width=8),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_actor_of_a_run_does_what_the_run_does(tmp_path, capsys, name):
    network = NETWORKS[name]
    folder = trained(
        tmp_path, network=network, normalize=True, show_previous=True, total_steps=200
    )
    command.export_command([folder])
    *_, told = capsys.readouterr().out.splitlines()
    assert told.startswith(f"{folder}/actor, after update ")
    actor = Actor.load(f"{folder}/actor")
    with training.load(folder) as run:
        specs, _ = run.args.specs()
        carry, ours = run.agent.initial_carry(B), actor.initial_carry(B)
        greedy, rng = jax.jit(run.agent.greedy), np.random.default_rng(0)
        for t in range(5):
            obs = jax.tree.map(
                lambda x: sample(x, rng, (B,)), specs,
                is_leaf=lambda x: hasattr(x, "dtype") and not isinstance(x, tuple),
            )  # fmt: skip
            step = TimeStep(obs, np.full(B, t == 0), np.zeros(B, bool))
            action, carry, _ = greedy(run.params, carry, step, random.key(0))
            found, ours = actor.step(obs, step.first, ours)
            np.testing.assert_array_equal(found, action)
    assert any(isinstance(x, Box) for x in jax.tree.leaves(specs))


@pytest.mark.slow
def test_a_run_whose_agent_is_no_actor_critic_is_refused(tmp_path):
    folder = trained(tmp_path, "dqn", total_steps=320)
    with pytest.raises(ExportError, match="is no policy of an actor-critic in float32"):
        command.export_command([folder])


def test_onnx_without_its_extra_is_refused_before_the_run_is_read(
    capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        command.export_command([str(tmp_path), "--onnx"])
    assert "pip install 'jaxrl-par[onnx]'" in capsys.readouterr().err
