"""A student learns what its teachers think of every action, and sees no reward.

A teacher is an agent that has learned and does not go on: of any kind that has
`Agent.preferences`, its logits or values q. With z the student's logits and
p = softmax(q / temperature), the losses of an observation are

    kl             sum_a p(a) log(p(a) / softmax(z)(a))
    nll            -log softmax(z)(argmax q)
    mse            sum_a (q(a) - z(a))**2
    cross_entropy  -sum_a p(a) log softmax(z)(a)

The temperature divides what the teacher says alone: values of actions lie close to each
other, and one far below 1 makes of them what is to be done.

    total = loss + feature_cost ||f(h) - h_q||**2

f is a linear map that is learned, one for each teacher; h and h_q are what the layers
read that make z and q. With `kl`, 0.01 and teachers that act it is policy distillation,
with `cross_entropy`, 1 and a student that acts Actor-Mimic.

With several tasks observations are `TaskObs`, and task i has teacher i. An action that
a task lacks weighs 0, in the loss and in its gradient.

Sources: Rusu et al., arXiv:1511.06295; Parisotto et al., arXiv:1511.06342.
"""

from jaxrl_par.algorithms.policy_distillation.agent import (
    acted_by_teachers,
    policy_distillation,
)
from jaxrl_par.algorithms.policy_distillation.loss import PolicyDistillationConfig
from jaxrl_par.algorithms.policy_distillation.teachers import FixedTeacher

__all__ = [
    "FixedTeacher",
    "PolicyDistillationConfig",
    "acted_by_teachers",
    "policy_distillation",
]
