"""One worker is the synchronous program, with every store; several keep the rules."""

from functools import cache

import jax
import numpy as np
import optax
import pytest
from nearness import assert_near
from toy_workers import share_compiled

from jaxrl_par import random
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.q_learning import QConfig, q_learning
from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.envs.host import from_pure
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.networks import NetworkConfig, actor_critic, q_network
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.workers import WorkersConfig, workers
from jaxrl_par.training.checkpoints import state_hash

NUM_ENVS, LENGTH, UPDATES = 2, 4, 6
ENV = probes.counter(NUM_ENVS)
KEY = random.key(5)


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch):
    share_compiled(monkeypatch)


def network(make=actor_critic, memory="none"):
    config = NetworkConfig(widths=(4,), memory=memory, memory_width=4)
    return make(ENV.observation_spec, ENV.action_spec, config)


def optimizer(name, norm=1e9):
    config = OptimizerConfig(name, 0.03, anneal=False, max_grad_norm=norm)
    return make_optimizer(config)


def q(method):
    config = QConfig(method, target_period=2, anneal_steps=40)
    return q_learning(network(q_network), optimizer("sgd"), config)


AGENTS = {
    "a2c, rmsprop": lambda: a2c(network(), optimizer("rmsprop")),
    "a2c, clipped": lambda: a2c(network(), optimizer("sgd", norm=0.1)),
    "a2c, lstm, adam": lambda: a2c(network(memory="lstm"), optax.adam(0.03)),
    "q": lambda: q("q"),
    "sarsa": lambda: q("sarsa"),
    "n_step": lambda: q("n_step"),
}
STORES = {"lock": 1, "hogwild": 1, "server": 1, "server of 3": 3}
agent_of = cache(lambda name: AGENTS[name]())


def make_env(key):
    return from_pure(ENV, key)


def trained(name, store="lock", num_workers=1, num_updates=UPDATES, env=ENV, **options):
    """The run, all metrics, and the report."""
    config = WorkersConfig(
        num_workers, store.split()[0], STORES[store],
        supervision=SupervisionConfig(env_timeout=60.0, patience=60.0), **options,
    )  # fmt: skip
    engine = workers(agent_of(name), env, LENGTH, config)
    try:
        run, metrics = engine.init(KEY), []
        for _ in range(2):
            run, new = engine.advance(run, num_updates // 2)
            metrics.append(new)
        report = engine.report()
    finally:
        engine.close()
    return run, jax.tree.map(lambda *xs: np.concatenate(xs), *metrics), report


@cache
def synchronous(name):
    program = compiled(agent_of(name), ENV, LENGTH)
    run, step, metrics = jax.jit(program.init)(KEY), jax.jit(program.step), []
    for _ in range(UPDATES):
        run, new = jax.block_until_ready(step(run))
        metrics.append(new)
    return run, jax.tree.map(lambda *xs: np.stack(xs), *metrics)


def learner_hash(run):
    """Of all but what workers keep for themselves."""
    return state_hash(jax.device_put(run._replace(local=())))


def is_exact(name, store):
    """Roots and norms of a vector may differ in the last bit from those of parts."""
    return store != "server of 3" or "sgd" in name or name in ("q", "sarsa", "n_step")


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("on_host", [False, True], ids=["pure", "host"])
def test_one_worker_is_the_synchronous_program(name, store, on_host):
    """Bit for bit: parameters, optimizer, counters and what was measured."""
    run, metrics, report = trained(name, store, env=make_env if on_host else ENV)
    expected, measured = synchronous(name)
    if is_exact(name, store):
        assert learner_hash(run) == learner_hash(expected)
    else:
        assert_near(run.learner, expected.learner, 1e-4)
    assert int(run.progress.env_steps) == int(expected.progress.env_steps) > 0
    assert int(run.progress.updates) == int(expected.progress.updates) == UPDATES
    assert metrics.keys() == measured.keys() | {"lag", "rejected", "stale", "outlying"}
    assert not metrics["lag"].any() and not metrics["rejected"].any()
    if is_exact(name, store) and STORES[store] == 1:
        ours = {x: metrics[x] for x in measured}
        jax.tree.map(np.testing.assert_array_equal, ours, measured)
    else:
        assert_near({x: metrics[x] for x in measured}, measured, 1e-4)
    assert report.lags == {0: UPDATES} and report.updates == UPDATES


@pytest.mark.slow
def test_gradients_of_the_clipped_agent_are_clipped():
    """So that the test above says something of clipping, and of none."""
    assert synchronous("a2c, clipped")[1]["grad_norm"].min() > 0.1
    assert synchronous("a2c, rmsprop")[1]["grad_norm"].max() < 1e9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a2c, clipped", "q"])
def test_one_worker_is_deterministic_and_learns(name):
    first, second = trained(name)[0], trained(name)[0]
    assert learner_hash(first) == learner_hash(second)
    with pytest.raises(AssertionError):
        assert_near(first.learner, trained(name, num_updates=2)[0].learner)


@pytest.mark.sample(1)
@pytest.mark.parametrize("store", STORES)
def test_workers_go_on_with_unrolls_of_their_own(store):
    run, metrics, _ = trained("a2c, clipped", store, num_workers=3, num_updates=30)
    unrolls = [int(x.unroll) for x in run.local.workers]
    assert sum(unrolls) == 30
    assert len(set(metrics["grad_norm"].tolist())) > 20


@pytest.mark.sample(1)
@pytest.mark.parametrize("most", [0, 1])
@pytest.mark.parametrize("store", ["lock", "hogwild", "server"])
def test_no_gradient_that_was_applied_is_staler_than_the_bound(store, most):
    config = StalenessConfig("reject", most)
    run, metrics, report = trained(
        "a2c, clipped", store, num_workers=4, num_updates=40, staleness=config
    )
    rejected = metrics["rejected"] > 0
    np.testing.assert_array_equal(rejected, metrics["lag"] > most)
    assert report.refused["rejected"] == report.refused["stale"] == rejected.sum()
    assert int(run.progress.updates) == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": 0}, "num_workers must be at least 1, got 0"),
        ({"num_shards": 0}, "num_shards must be at least 1, got 0"),
        ({"num_shards": 2}, "num_shards is for store = server; lock has one, got 2"),
        ({"store": "hogwild", "num_shards": 2}, "hogwild has one, got 2"),
        (
            {"supervision": SupervisionConfig(max_restarts=-1)},
            "max_restarts must be at least 0",
        ),
        ({"staleness": StalenessConfig(max_staleness=-1)}, "max_staleness must be"),
    ],
)
def test_wrong_configs_are_refused_before_anything_starts(options, message):
    with pytest.raises(ValueError, match=message):
        workers(agent_of("q"), ENV, LENGTH, WorkersConfig(**options))


def test_an_unroll_has_a_length():
    with pytest.raises(ValueError, match="unroll_length must be at least 1, got 0"):
        workers(agent_of("q"), ENV, 0, WorkersConfig())


def test_more_shards_than_parameters_are_refused():
    config = WorkersConfig(1, "server", 4096)
    engine = workers(agent_of("q"), ENV, LENGTH, config)
    try:
        with pytest.raises(ValueError, match="the number of parameters, got 4096"):
            engine.init(KEY)
    finally:
        engine.close()
