"""The losses of policy distillation, and their config."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par import losses
from jaxrl_par.distributions import Categorical
from jaxrl_par.errors import ReadIf, above, at_least, not_chosen
from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network
from jaxrl_par.types import Metrics, Params, TaskObs, TimeStep, Trajectory

METRICS = {
    "loss": Metric("1", "of imitation, as `--distil.loss` says"),
    "loss_*": Metric("1", "the same, of the task with this number"),
    "agreement": Metric(
        "share of rows", "in which teacher and student prefer the same action"
    ),
    "feature_loss": Metric(
        "1", "squared error of the teacher's features, guessed from the student's"
    ),
}

Logits = Float[Array, "*N A"]
"""Or values, -inf where an action is impossible."""
Rows = Float[Array, "*N"]


@dataclass(frozen=True)
class PolicyDistillationConfig:
    """What of its teachers a student imitates."""

    read_if: ClassVar[ReadIf] = {"temperature": ("loss", ("kl", "cross_entropy"))}
    """What each of these fields is for: another one, and its values."""

    loss: Literal["kl", "nll", "mse", "cross_entropy"] = "kl"
    """Of the teacher's distribution (kl, and cross_entropy, of the same gradient), of
    its best action, or of its values or logits."""
    temperature: float = 0.01
    """What the teacher's values are divided by. For its logits, 1."""
    feature_cost: float = 0.0
    """Weight of the squared error of the teacher's features, summed over them."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = above(self, temperature=0) + at_least(self, feature_cost=0)
        return not_chosen(self) + found

    @property
    def reads_features(self) -> bool:
        return losses.in_use(self.feature_cost)


class StudentParams(NamedTuple):
    """What is learned."""

    network: Params
    maps: Float[Array, "G D F"] | tuple[()]
    """To the F features of each of G teachers; () where these are not read."""


def loss(
    params: StudentParams,
    batch: Trajectory,
    network: Network,
    config: PolicyDistillationConfig,
) -> tuple[Float[Array, ""], Metrics]:
    """The mean over the T * B rows, of which those that are `last` count as 0.

    `batch.extras` has what the teachers said: `preferences`, and `features` if read.
    """
    rows, last, carry = batch.rows, batch.rows.last, batch.carry.student
    said: Array = batch.extras["preferences"]
    features = None
    if config.reads_features:
        assert network.with_features is not None
        told, _ = network.with_features(params.network, carry, rows)
        (policy, _), features = told
    else:
        (policy, _), _ = network.unroll(params.network, carry, rows)
    imitation = LOSSES[config.loss](said, policy.logits, config.temperature)
    same = policy.mode() == Categorical(said).mode()
    shown: dict[str, Array] = {"loss": imitation, "entropy": policy.entropy()}
    shown["agreement"] = same.astype(jnp.float32)
    total = imitation
    if features is not None:
        assert not isinstance(params.maps, tuple)
        errors = feature_errors(params.maps, features, batch)
        shown["feature_loss"] = errors
        total = imitation + config.feature_cost * errors
    metrics = losses.row_means(last, **shown) | _of_each_task(rows, imitation, network)
    return losses.over_rows(total, last), metrics


def kl(said: Logits, logits: Logits, temperature: float | Array) -> Rows:
    """KL(softmax(said / temperature) || softmax(logits))"""
    return Categorical(said / temperature).kl(Categorical(logits))


def cross_entropy(said: Logits, logits: Logits, temperature: float | Array) -> Rows:
    """Of the same two: the divergence, and the entropy of what the teacher said."""
    entropy = Categorical(said / temperature).entropy()
    return kl(said, logits, temperature) + entropy


def nll(said: Logits, logits: Logits, temperature: float | Array) -> Rows:
    """-log softmax(logits) of the teacher's best action."""
    del temperature  # the best stays the best
    return -Categorical(logits).log_prob(Categorical(said).mode())


def mse(said: Logits, logits: Logits, temperature: float | Array) -> Rows:
    """Squared differences, summed over the actions that there are."""
    del temperature  # values are learned as they are
    there = said > -jnp.inf
    # Chosen before they are subtracted: infinity times a slope of 0 is no number.
    said, logits = (jnp.where(there, x, 0.0) for x in (said, logits))
    return jnp.sum(jnp.square(said - logits), axis=-1)


LOSSES = {"kl": kl, "nll": nll, "mse": mse, "cross_entropy": cross_entropy}


def feature_errors(
    maps: Float[Array, "G D F"], features: Float[Array, "T B D"], batch: Trajectory
) -> Float[Array, "T B"]:
    """||f(h) - h_q||**2, with the map of each row's task."""
    mapped = jnp.einsum("tbd,gdf->gtbf", features, maps)
    if isinstance(batch.steps.obs, TaskObs):
        numbers = jnp.arange(len(maps))[:, None, None, None]
        mine = batch.rows.obs.task[None, ..., None] == numbers
        mapped = jnp.where(mine, mapped, 0.0)
    told = jax.lax.stop_gradient(batch.extras["features"])
    return jnp.sum(jnp.square(jnp.sum(mapped, axis=0) - told), axis=-1)


def _of_each_task(rows: TimeStep, row_losses: Rows, network: Network) -> Metrics:
    """The loss of each task alone, where there are several."""
    if not isinstance(rows.obs, TaskObs) or network.specs is None:
        return {}
    return {
        f"loss_{i}": losses.row_mean(row_losses, rows.last | (rows.obs.task != i))
        for i in range(network.specs[0].task.num_values)
    }
