"""Optimizers from a config: clipping, a schedule, and Adam, RMSProp or SGD."""

from dataclasses import dataclass
from typing import Literal

import optax

from jaxrl_par.errors import above, at_least, below, not_chosen, refuse


@dataclass(frozen=True)
class OptimizerConfig:
    """How a gradient changes parameters."""

    name: Literal["adam", "rmsprop", "sgd"] = "adam"
    """rmsprop is A3C's shared RMSProp, with epsilon inside the square root: here one
    optimizer sees the gradient of all workers."""
    learning_rate: float = 1e-3
    anneal: bool = True
    """Decay the learning rate linearly to 0 over the run."""
    max_grad_norm: float = 0.5
    """Global norm to which a gradient is clipped."""
    epsilon: float = 1e-5
    """Keeps the step finite where gradients vanish."""
    decay: float = 0.99
    """Of RMSProp's mean of squared gradients."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = above(self, learning_rate=0, max_grad_norm=0, epsilon=0)
        return found + at_least(self, decay=0) + below(self, decay=1) + not_chosen(self)


def make_optimizer(
    config: OptimizerConfig, num_steps: int
) -> optax.GradientTransformation:
    """Clips, then takes a step of Adam, RMSProp or SGD.

        rmsprop:  g <- decay g + (1 - decay) grad**2
                  params <- params - learning_rate grad / sqrt(g + epsilon)

    It works on all parameters raveled into one vector: for small networks, an operation
    on each leaf costs more than what it computes.

    Args:
      config: its learning rate may be traced.
      num_steps: updates of the whole run, after which an annealed rate is 0.

    Raises:
      ValueError: the config is out of range, or `num_steps` below 1.

    Source of RMSProp: Mnih et al., arXiv:1602.01783, section 4.
    """
    refuse(config, num_steps=num_steps)
    rate = config.learning_rate
    if config.anneal:
        rate = optax.linear_schedule(rate, 0.0, num_steps)
    step = {
        "adam": lambda: optax.adam(rate, eps=config.epsilon),
        "rmsprop": lambda: optax.rmsprop(
            rate, decay=config.decay, eps=config.epsilon, eps_in_sqrt=True
        ),
        "sgd": lambda: optax.sgd(rate),
    }[config.name]()
    return optax.flatten(
        optax.chain(optax.clip_by_global_norm(config.max_grad_norm), step)
    )
