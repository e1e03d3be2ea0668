"""An agent that was made for other observations or actions is refused wherever it meets
an environment, before anything is compiled."""

from contextlib import closing

import optax
import pytest

from jaxrl_par import envs, random, rollout
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.envs.host import from_pure
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops.schedules import in_turn
from jaxrl_par.networks import actor_critic
from jaxrl_par.topologies.compiled import compiled, episodic
from jaxrl_par.topologies.delayed import delayed
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, threads
from jaxrl_par.topologies.workers import WorkersConfig, workers
from jaxrl_par.training.animation import animate
from jaxrl_par.training.evaluation import evaluator
from jaxrl_par.training.host_evaluation import host_evaluator
from jaxrl_par.types import Box

KEY = random.key(0)


def made_for(name):
    return a2c(actor_critic(*envs.make(name, 1).specs), optax.sgd(0.1))


@pytest.mark.parametrize("name", ["Pendulum-v1", "Acrobot-v1", "DeepSea-bsuite"])
def test_an_agent_is_refused_where_specs_are_others(name):
    agent, env = made_for("CartPole-v1"), envs.make(name, 2)
    told = rf"made for observations float32 \(4,\) .* actions one of 2; {name} has obs"
    with pytest.raises(RefusedError, match=told):
        compiled(agent, env, 4)
    schedule = in_turn(1, 4, 0)
    for meet in (
        lambda: episodic(agent, env, 4),
        lambda: delayed(agent, env, 4, schedule, num_workers=1),
        lambda: workers(agent, env, 4, WorkersConfig()),
        lambda: evaluator(agent, env, 1)((), KEY),
        lambda: rollout.start(normalize_observations(agent), env, random.key(0)),
        lambda: animate(agent, env, (), "none.gif", random.key(0)),
        lambda: host_evaluator(agent, 1)(from_pure(env, KEY), (), KEY),
    ):
        with pytest.raises(RefusedError, match="the agent was made for"):
            meet()


@pytest.mark.parametrize("topology", ["threads", "workers"])
def test_an_agent_is_refused_by_simulators_of_other_specs(topology):
    agent, env = made_for("CartPole-v1"), envs.make("Acrobot-v1", 2)

    def make_env(key):
        return from_pure(env, key)

    if topology == "threads":
        config = ThreadsConfig(num_actors=1)
        engine = threads(agent, make_env, 4, config, data_mesh(1))
    else:
        engine = workers(agent, make_env, 4, WorkersConfig(num_workers=1))
    with closing(engine), pytest.raises(RefusedError, match="the agent was made for"):
        engine.init(random.key(0))


def test_specs_of_any_number_of_environments_meet():
    env = envs.make("Pendulum-v1", 3)
    rollout.refuse_other_specs(made_for("Pendulum-v1"), env)
    anyone = made_for("CartPole-v1")._replace(specs=None)
    rollout.refuse_other_specs(anyone, env)
    for low, high in ((-3, 2), (-2, 3)):
        wider = env._replace(action_spec=Box((1,), low=float(low), high=float(high)))
        told = rf"in \[-2, 2\].* in \[{low}, {high}\]"
        with pytest.raises(RefusedError, match=told):
            rollout.refuse_other_specs(made_for("Pendulum-v1"), wider)
