"""What a learner keeps, as shapes: to know its size before it is there."""

import jax
import jax.numpy as jnp

from jaxrl_par import rollout
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops.learner import Data, Learner
from jaxrl_par.types import TimeStep, example


def data_shapes(learner: Learner, num_lanes: int, length: int) -> Data:
    """Shapes and dtypes of a learner's data, without making them: of one device or
    worker, whose trajectories have so many lanes and rows.

    Raises:
      ValueError: the agent does not say for what specs it was made.
    """
    agent = learner.actor
    if agent.specs is None:
        raise RefusedError("data_shapes needs an agent that was made for specs")
    observation_spec, _ = agent.specs

    def start() -> Data:
        no = jnp.zeros(num_lanes, bool)
        step = TimeStep(example(observation_spec, num_lanes), no, no)
        params = learner.params(learner.init(jax.random.key(0), step))
        return learner.start(rollout.shapes(agent, params, step, length))

    return jax.eval_shape(start)
