"""Decentralised learners: each has parameters of its own, and averages with a few.

No learner waits for all others, as it does at the mean of all gradients. Two paces:

    together   params_i <- sum_j W_ij (params_j + update_j)
    own        params_i, params_j <- their mean;  params_i <- params_i + update_i

W is doubly stochastic: its rows and columns sum to 1, so that averaging keeps the mean
of all parameters, and learners come together at the rate of its second eigenvalue. At
its own pace a learner acts, and computes its update, with what it had when it began,
whatever others have added to that by then.

With W = 1/N, at every update, `together` is `topologies.sharded` but for rounding, for
plain gradient descent, with and without momentum. With Adam, RMSProp or clipping by
norm it is another algorithm, whose steps are means of steps and not steps of a mean: of
gradients 1 and -3, Adam's first steps cancel, and the step of their mean does not. So
is it for a loss that is a sum over environments, as each learner sums over its own.

Learners draw what devices of `topologies.sharded` draw. Each takes the others to have
acted as many steps as itself, where its rates are annealed; nobody asks for the sum.
What a run has in `learner`, `key` and `progress` is [N, ...], as of a population, and
so are its metrics; what is evaluated is the mean of the learners' parameters.

`gossip.fleet` has learners in processes of their own, which send each other what they
have: without a mesh, and where one may die.

Sources: Lian et al., arXiv:1705.09056 (D-PSGD), algorithm 1; Lian et al.,
arXiv:1710.06952 (AD-PSGD), algorithm 1; Assran et al., arXiv:1906.04585 (gossip of
actors and learners).
"""

import jax
from jax.sharding import Mesh

from jaxrl_par import loops, rollout
from jaxrl_par.envs import Environment
from jaxrl_par.envs.base import refuse_others
from jaxrl_par.errors import lacking, refuse, refuse_any
from jaxrl_par.loops import Learner, Program, Run, learner_of, schedules
from jaxrl_par.loops.peers import mean_state
from jaxrl_par.loops.schedules import Schedule
from jaxrl_par.topologies.gossip.config import GossipConfig as GossipConfig
from jaxrl_par.topologies.gossip.own_pace import at_own_pace
from jaxrl_par.topologies.gossip.system import System
from jaxrl_par.topologies.gossip.together import here, on_mesh
from jaxrl_par.types import Agent, Metrics


def gossip(
    learner: Agent | Learner,
    env: Environment,
    unroll_length: int,
    config: GossipConfig,
    *,
    mesh: Mesh | None = None,
    schedule: Schedule | None = None,
) -> Program:
    """Learners that act in environments of their own, learn, and average.

    Args:
      learner: an agent alone learns from each trajectory once.
      env: the environments of one learner.
      mesh: a device for each learner; by default all are on one, side by side.
      schedule: whose turn it is, for pace = own. Delays in it are not read: a learner's
        are those of its own turns.

    Raises:
      RefusedError: the config is out of range, the agent was made for other specs or
        searches for steps, or mesh and schedule do not fit.
    """
    kinds = lacking("a GossipConfig", "num_learners", "pace", config=config)
    if mesh is not None:
        kinds += lacking("a Mesh, as data_mesh returns it", "axis_names", mesh=mesh)
    if schedule is not None:
        kinds += schedules.not_a_schedule(schedule)
    refuse_any(kinds)
    refuse(config, unroll_length=unroll_length)
    refuse_others(env)
    refuse_any(_problems(config, mesh, schedule))
    learner = learner_of(learner)
    rollout.refuse_other_specs(learner.actor, env)
    if config.num_learners > 1:
        loops.refuse_joint(learner, "gossip")
    system = System(learner, env, unroll_length, config)
    if schedule is not None:
        return _settings_apart(at_own_pace(system, schedule))
    return _settings_apart(here(system) if mesh is None else on_mesh(system, mesh))


def averaged(run: Run) -> Run:
    """A run of one learner, with the mean of all learners' parameters, and the counts
    and the key of the first: for who evaluates. What is local is left out."""

    def first(run: Run) -> Run:
        one = jax.tree.map(lambda x: x[0], run._replace(learner=(), local=()))
        return one._replace(learner=mean_state(run.learner))

    run = jax.jit(first)(run._replace(local=()))
    return jax.device_put(run, jax.local_devices()[0])


def _settings_apart(program: Program) -> Program:
    """The program, whose run may have settings: of a population, and no learner's."""

    def step(run: Run) -> tuple[Run, Metrics]:
        stepped, metrics = program.step(run._replace(settings=()))
        return stepped._replace(settings=run.settings), metrics

    return Program(program.init, step)


def _problems(
    config: GossipConfig, mesh: Mesh | None, schedule: Schedule | None
) -> list[str]:
    number = config.num_learners
    if mesh is not None and mesh.size != number:
        return [f"num_learners must be the {mesh.size} devices' number, got {number}"]
    if config.pace == "together":
        return [] if schedule is None else ["a schedule is for pace = own"]
    if schedule is None:
        return ["pace = own needs a schedule: who is done when"]
    if mesh is not None:
        return ["pace = own is data, on one device: leave the mesh out"]
    worker = schedule.worker
    found = schedules.problems(Schedule(worker, worker * 0), number, 0)
    return [f"schedule: {line}" for line in found]
