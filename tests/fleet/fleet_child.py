"""A process with a cluster of its own, without the checks of types that tests have.

python fleet_child.py compiled    # a worker of a pure environment, and the program
python fleet_child.py runs        # a fleet that runs until a line comes, then closes
python fleet_child.py nodes       # two nodes, of which one is lost
"""

import json
import sys
import threading
from pathlib import Path

import fleets
import jax
import optax

from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.fleet import fleet_of_workers
from jaxrl_par.topologies.workers import WorkersConfig


def learner():
    config = fleets.NetworkConfig(widths=(8,))
    specs = fleets.ENV.observation_spec, fleets.ENV.action_spec
    return a2c(fleets.actor_critic(*specs, config), optax.rmsprop(0.01))


def as_compiled() -> None:
    """Prints two hashes."""
    config, where = WorkersConfig(1), fleets.FLEET
    engine = fleet_of_workers(learner(), fleets.ENV, 5, config, fleet=where)
    ours = fleets.advanced(engine, 6)
    program = compiled(learner(), fleets.ENV, 5)
    run, step = jax.jit(program.init)(fleets.KEY), jax.jit(program.step)
    for _ in range(6):
        run, _ = step(run)
    print(fleets.learner_hash(ours), fleets.learner_hash(run))


def descendants(pid: int) -> list[int]:
    """All processes that it has started, and those that they have."""
    found = [
        int(x)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for x in (task / "children").read_text().split()
    ]
    return found + [x for child in found for x in descendants(child)]


def runs() -> None:
    """Prints what it has started, as soon as it learns."""
    import os

    asked = threading.Event()

    def wait() -> None:
        sys.stdin.readline()
        asked.set()

    threading.Thread(target=wait, daemon=True).start()
    engine = fleets.fleet_engine(fleets.lockstep(env_timeout=5.0))
    try:
        run = engine.init(fleets.KEY)
        run, _ = engine.advance(run, 4)
        told = {
            "all": descendants(os.getpid()),
            "actors": fleets.processes(engine),
            "raylet": [
                x
                for x in descendants(os.getpid())
                if "raylet/raylet" in Path(f"/proc/{x}/cmdline").read_text()
            ],
            "folder": fleets.folder(),
        }
        print(json.dumps(told), flush=True)
        while not asked.is_set():
            run, _ = engine.advance(run, 4)
    finally:
        engine.close()
    print("closed", flush=True)


def parents(engine) -> list[int]:
    """What started the process of each actor: a raylet, of which a node has one."""
    found = []
    for pid in fleets.processes(engine):
        stat = Path(f"/proc/{pid}/stat").read_text()
        found.append(int(stat.rpartition(")")[2].split()[1]))
    return found


def nodes() -> None:
    """Prints on how many nodes actors were, hashes of a run there and in threads, and
    what became of a run whose first actor's node was killed."""
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 80 * 10**6}
    there = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **memory})
    try:
        many = [there.add_node(num_cpus=2, **memory) for _ in range(2)]
        where = {"address": there.address, "object_store_mb": None}
        told, seen = {}, []
        engine = fleets.fleet_engine(fleets.lockstep(), **where)
        run = fleets.advanced(engine, 8, lambda x: seen.extend(parents(x)))
        told["nodes"], told["hash"] = len(set(seen)), fleets.whole_hash(run)
        alone = fleets.advanced(fleets.threads_engine(fleets.lockstep()), 8)
        told["threads"] = fleets.whole_hash(alone)

        def kill_node(engine) -> None:
            raylets = {x.all_processes["raylet"][0].process.pid: x for x in many}
            there.remove_node(raylets[parents(engine)[0]], allow_graceful=False)

        engine = fleets.fleet_engine(fleets.lockstep(on_error="restart"), **where)
        run = fleets.advanced(engine, 12, kill_node)
        told["updates"] = int(run.progress.updates)
        told["generations"] = [int(x.generation) for x in run.local.actors]
        told["restarts"] = engine.report().restarts
        print(json.dumps(told), flush=True)
    finally:
        there.shutdown()


if __name__ == "__main__":
    modes = {"compiled": as_compiled, "runs": runs, "nodes": nodes}
    modes[sys.argv[1]]()
