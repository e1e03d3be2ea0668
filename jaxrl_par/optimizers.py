"""Optimizers from a config: clipping, a schedule, and Adam, RMSProp, AdaGrad or SGD."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import optax

from jaxrl_par.elapsed import Elapsed
from jaxrl_par.errors import ReadIf, above, at_least, below, not_chosen, refuse


@dataclass(frozen=True)
class OptimizerConfig:
    """How a gradient changes parameters."""

    read_if: ClassVar[ReadIf] = {
        "decay": ("name", ("rmsprop",)),
        "epsilon": ("name", ("adam", "rmsprop", "adagrad")),
        "momentum": ("name", ("sgd",)),
    }
    """What each of these fields is for: another one, and its values."""

    name: Literal["adam", "rmsprop", "adagrad", "sgd"] = "adam"
    """rmsprop is A3C's shared RMSProp, with epsilon inside the square root: here one
    optimizer sees the gradient of all workers. adagrad, as Gorila's, forgets nothing:
    its steps become ever smaller."""
    learning_rate: float = 1e-3
    anneal: bool = True
    """Decay the learning rate linearly to 0 over the run, by environment steps."""
    max_grad_norm: float = 0.5
    """Global norm to which a gradient is clipped."""
    epsilon: float = 1e-5
    """Keeps the step finite where gradients vanish."""
    decay: float = 0.99
    """What RMSProp's mean of squared gradients keeps of itself in an update."""
    momentum: float = 0.0
    """What SGD's step keeps of the one before."""

    def problems(self) -> list[str]:
        found = above(self, learning_rate=0, max_grad_norm=0, epsilon=0)
        found += at_least(self, decay=0, momentum=0)
        found += below(self, decay=1, momentum=1, learning_rate=math.inf)
        return found + not_chosen(self)


def make_optimizer(
    config: OptimizerConfig, total_env_steps: int | None = None
) -> optax.GradientTransformation:
    """Clips, then takes a step of Adam, RMSProp, AdaGrad or SGD.

        rmsprop:  g <- decay g + (1 - decay) grad**2
                  params <- params - learning_rate grad / sqrt(g + epsilon)
        adagrad:  g <- g + grad**2, and the same step

    It works on all parameters raveled into one vector: for small networks, an operation
    on each leaf costs more than what it computes.

    Args:
      config: its learning rate may be traced.
      total_env_steps: after which an annealed rate is 0, counted as `elapsed` says.

    Raises:
      ValueError: the config is out of range, `total_env_steps` below 1, or missing for
        a rate that is annealed.

    Sources: Mnih et al., arXiv:1602.01783, section 4 (RMSProp); Duchi, Hazan and
    Singer, JMLR 12 (2011) (AdaGrad).
    """
    refuse(config)
    rate = optax.scale_by_learning_rate(config.learning_rate)
    if config.anneal:
        if total_env_steps is None:
            raise ValueError(
                "a rate is annealed over total_env_steps: give them, or anneal=False"
            )
        refuse(total_env_steps=total_env_steps)
        rate = _annealed(config.learning_rate, total_env_steps)
    direction = {
        "adam": optax.scale_by_adam(eps=config.epsilon),
        "rmsprop": optax.scale_by_rms(config.decay, config.epsilon, eps_in_sqrt=True),
        "adagrad": optax.scale_by_rss(0.0, config.epsilon),
        "sgd": optax.trace(config.momentum) if config.momentum else optax.identity(),
    }[config.name]
    clip = optax.clip_by_global_norm(config.max_grad_norm)
    return optax.flatten(optax.chain(clip, direction, rate))


def _annealed(rate: float, total_env_steps: int) -> optax.GradientTransformation:
    """Steps downhill, by a rate that is 0 after so many environment steps."""

    def update(updates: optax.Updates, state: optax.OptState, params=None):
        assert isinstance(state, Elapsed)
        scale = -rate * (1.0 - state.fraction(total_env_steps))
        return jax.tree.map(lambda x: (scale * x).astype(x.dtype), updates), state

    return optax.GradientTransformation(lambda params: Elapsed.zero(), update)
