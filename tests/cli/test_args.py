"""One config for every topology: budgets, what is made, what is refused."""

import os
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import ClassVar, get_args, get_type_hints

import jax
import jax.numpy as jnp
import pytest
import tyro

from jaxrl_par import cli, errors, presets, random
from jaxrl_par.cli.entry import choose_threads, compute_in_place, force_devices
from jaxrl_par.cli.readers import READ_BY, SIMULATED
from jaxrl_par.elapsed import passed
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.envs.resets import Resets
from jaxrl_par.envs.wrappers import WithPrevious
from jaxrl_par.hosts.config import HostsConfig as Hosts
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.loops.delays import DelaysConfig
from jaxrl_par.loops.outliers import OutlierConfig
from jaxrl_par.networks import NetworkConfig, TransformerConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets import reinforce
from jaxrl_par.topologies.fleet import FleetConfig
from jaxrl_par.topologies.gossip import GossipConfig
from jaxrl_par.topologies.threads import ThreadsConfig
from jaxrl_par.topologies.workers import WorkersConfig
from jaxrl_par.training import TrainingConfig, TrainingError
from jaxrl_par.training.summary import xla_threads

TOPOLOGIES = get_args(cli.Topology)
SMALL = cli.Args(
    num_envs=8, unroll_length=4, total_steps=320,
    threads=ThreadsConfig(num_actors=4, unrolls_per_update=2),
    workers=WorkersConfig(num_workers=8),
)  # fmt: skip


def problems(config=cli.Args, **options):
    return "\n".join(config(**options).problems())


def test_an_update_takes_the_rows_that_its_topology_learns_from():
    """All environments; those of the actors of a batch; those of one worker."""
    placed = {x: replace(SMALL, topology=x) for x in TOPOLOGIES}
    rows = {x: args.rows_per_update for x, args in placed.items()}
    same = {"gossip": 32, "threads": 16, "fleet": 16, "delayed": 4, "workers": 4}
    assert rows == {"compiled": 32, **same}
    most = {x: args.max_updates for x, args in placed.items()}
    same = {"gossip": 21, "threads": 41, "fleet": 41, "delayed": 161, "workers": 161}
    assert most == {"compiled": 21, **same}
    each = {x: args.envs_each for x, args in placed.items()}
    same = {"gossip": 2, "threads": 2, "fleet": 2, "delayed": 1, "workers": 1}
    assert each == {"compiled": 8, **same}
    own_pace = replace(placed["gossip"], gossip=GossipConfig(pace="own"))
    assert (own_pace.rows_per_update, own_pace.is_annealed) == (8, True)
    assert replace(SMALL, num_devices=4).envs_each == 2


@pytest.mark.parametrize("config", [cli.Args, cli.EpochArgs])
def test_a_rate_is_annealed_over_the_environment_steps_of_a_run(config):
    """However many updates those are."""
    sgd = OptimizerConfig("sgd", learning_rate=1.0, max_grad_norm=1e9)
    optimizer = config(total_steps=16, optimizer=sgd).make_optimizer()
    state, rates = optimizer.init(jnp.zeros(())), []
    for env_steps in (0, 4, 4, 8, 1):
        state = passed(state, env_steps)
        update, state = optimizer.update(jnp.ones(()), state)
        rates.append(-float(update))
    assert rates == pytest.approx([1.0, 0.75, 0.5, 0.0, 0.0])


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_defaults_run_on_every_topology(topology):
    assert not problems(topology=topology)


REFUSED = [
    ({"topology": "delayed", "backend": "gymnasium"},
     "backend is for topology = threads or workers, not delayed: leave it out, got"
     " gymnasium"),
    ({"repeat": "x"}, "repeat is for topology = threads, workers or gossip, not"
     " compiled"),
    ({"topology": "delayed", "repeat": "x"},
     "repeat is for topology = threads, workers or gossip"),
    ({"topology": "threads", "repeat": "x", "threads": ThreadsConfig(2, "lockstep")},
     "repeat is for threads with the free schedule, not lockstep"),
    ({"topology": "workers", "num_devices": 2},
     "num_devices is for topology = compiled, gossip or threads, not workers"),
    ({"topology": "delayed", "num_devices": 2}, "num_devices is for topology = comp"),
    ({"topology": "workers", "normalize": True},
     "normalize is for topology = compiled, delayed, gossip or threads, not workers"),
    ({"threads": ThreadsConfig(num_actors=4)},
     "threads.num_actors is for topology = threads, not compiled: leave it out, got 4"),
    ({"topology": "threads", "workers": WorkersConfig(num_workers=2)},
     "workers.num_workers is for topology = delayed or workers, not threads"),
    ({"topology": "delayed", "workers": WorkersConfig(store="hogwild")},
     "workers.store is for topology = workers, not delayed: leave it out, got hogwild"),
    ({"topology": "workers", "delays": DelaysConfig(delay=1)},
     "delays.delay is for topology = delayed, not workers: leave it out, got 1"),
    ({"topology": "delayed", "delays": DelaysConfig(quorum=5)},
     "delays.quorum must be at most workers.num_workers = 4, got 5"),
    ({"topology": "delayed", "delays": DelaysConfig(quorum=2),
      "workers": WorkersConfig(staleness=StalenessConfig("scale"))},
     "workers.staleness.rule must be accept or reject with delays.quorum"),
    ({"topology": "delayed", "delays": DelaysConfig(quorum=2),
      "workers": WorkersConfig(outliers=OutlierConfig("reject"))},
     "workers.outliers: with delays.quorum no gradient is judged alone"),
    ({"topology": "fleet", "threads": ThreadsConfig(act_with="numpy")},
     "threads.act_with must be jax in a fleet with CartPole-v1, got numpy: pure"),
    ({"topology": "threads", "threads": ThreadsConfig(
        inference="central", act_with="numpy")},
     "threads.act_with is for inference = local, not central: leave it out"),
    ({"env_name": "Cartpole-v1"}, "env_name: unknown name 'Cartpole-v1'; did you mean"
     " 'CartPole-v1'?"),
    ({"env_name": "IMaze-8x8", "topology": "threads"}, "did you mean 'IMaze-9x9'?"),
    ({"unroll_length": 0}, "unroll_length must be at least 1, got 0"),
    ({"num_envs": 9, "num_devices": 2}, "num_envs must be a multiple of num_devices ="
     " 2, got 9"),
    ({"num_envs": 5, "topology": "threads"}, "multiple of threads.num_actors = 2"),
    ({"num_envs": 5, "topology": "workers"}, "multiple of workers.num_workers = 4"),
    ({"num_envs": 5, "topology": "gossip"}, "multiple of gossip.num_learners = 4"),
    ({"gossip": GossipConfig(2)}, "gossip.num_learners is for topology = gossip, not"),
    ({"topology": "gossip", "num_devices": 3},
     "num_devices must be 1 or gossip.num_learners = 4, got 3"),
    ({"topology": "gossip", "num_devices": 4, "gossip": GossipConfig(pace="own")},
     "num_devices must be 1 for gossip.pace = own, which is data, got 4"),
    ({"topology": "gossip", "delays": DelaysConfig("none")},
     "delays.model is for gossip.pace = own, not together: leave it out, got none"),
    ({"topology": "gossip", "gossip": GossipConfig(pace="own"),
      "delays": DelaysConfig("constant")}, "a constant delay is for topology ="),
    ({"in_processes": True}, "in_processes is for topology = gossip, not compiled"),
    ({"topology": "gossip", "fleet": FleetConfig(xla_threads=2)},
     "fleet.xla_threads is for in_processes: leave it out, got 2"),
    ({"topology": "gossip", "in_processes": True, "gossip": GossipConfig(pace="own"),
      "delays": DelaysConfig("none")},
     "delays.model is not for in_processes, where each is as fast as it is: leave it"
     " out, got none"),
    ({"topology": "gossip", "in_processes": True, "repeat": "x"},
     "repeat is for in_processes with gossip.pace = own: leave it out, got x"),
    ({"topology": "gossip", "gossip": GossipConfig(pace="own", on_error="restart")},
     "gossip.on_error is for in_processes: leave it out, got restart"),
    ({"topology": "gossip", "in_processes": True,
      "gossip": GossipConfig(on_error="restart")},
     "gossip.on_error is for pace = own, not together: leave it out, got restart"),
    ({"topology": "gossip", "in_processes": True, "num_devices": 4},
     "num_devices must be 1 with in_processes, got 4"),
    ({"topology": "gossip", "in_processes": True,
      "fleet": FleetConfig(threads_per_process=2)},
     "fleet.threads_per_process is for topology = fleet, not gossip: leave it out"),
    ({"num_devices": 5, "topology": "threads"},
     "num_devices must divide the 32 environments of a batch, got 5"),
    ({"network": NetworkConfig(memory_width=8)},
     "network.memory_width is for memory = lstm, gru or gtrxl, not none: leave it out,"
     " got 8"),
    ({"network": NetworkConfig(memory="lstm", transformer=TransformerConfig(3))},
     "network.transformer.num_layers is for memory = gtrxl, not lstm: leave it out"),
    ({"optimizer": OptimizerConfig(decay=0.5)},
     "optimizer.decay is for name = rmsprop, not adam: leave it out, got 0.5"),
    ({"topology": "workers", "workers": WorkersConfig(
        staleness=StalenessConfig("scale", 3))},
     "workers.staleness.max_staleness is for rule = reject, not scale: leave it out"),
    ({"total_steps": 0}, "total_steps must be at least 1, got 0"),
    ({"topology": "threads", "fleet": FleetConfig(threads_per_process=2)},
     "fleet.threads_per_process is for topology = fleet, not threads: leave it out"),
    ({"topology": "fleet", "workers": WorkersConfig(num_workers=2)},
     "workers.num_workers is for topology = delayed or workers, not fleet"),
    ({"num_envs": 5, "topology": "fleet"}, "multiple of threads.num_actors = 2"),
    ({"topology": "fleet", "fleet": FleetConfig("h:1", object_store_mb=100)},
     "fleet.object_store_mb is for address = None, not h:1: leave it out, got 100"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_run_is_refused_in_a_sentence(options, said):
    (problem,) = cli.Args(**options).problems()
    assert said in problem


def test_everything_wrong_is_said_at_once():
    found = cli.Args(
        env_name="Cartpole-v1", repeat="x", num_envs=3, num_devices=2,
        workers=WorkersConfig(num_workers=2), delays=DelaysConfig(delay=1, tail=2.0),
    ).problems()  # fmt: skip
    starts = ["repeat", "workers.num_workers", "delays.delay", "delays.tail"]
    starts += ["env_name", "num_envs"]
    assert len(found) == len(starts)
    assert all(x.startswith(y) for x, y in zip(found, starts, strict=True))


def test_what_delayed_shares_with_workers_it_takes():
    workers = WorkersConfig(num_workers=2, staleness=StalenessConfig("reject", 3))
    options = {"workers": workers, "delays": DelaysConfig("none"), "normalize": True}
    assert not problems(topology="delayed", **options)


def test_a_fleet_takes_the_settings_of_the_system_that_it_runs():
    normalized = {"topology": "fleet", "normalize": True, "num_devices": 2}
    threads = ThreadsConfig(num_actors=4, schedule="lockstep")
    assert not problems(threads=threads, backend="gymnasium", **normalized)
    workers = WorkersConfig(num_workers=2)
    asynchronous = presets.get("a3c").config
    assert not problems(asynchronous, topology="fleet", workers=workers)
    assert problems(asynchronous, topology="fleet", threads=threads).startswith(
        "threads.num_actors is for topology = threads, not fleet"
    )


def test_readers_are_named_for_fields_that_there_are():
    names = {x.name for x in fields(cli.Args)}
    assert {x.partition(".")[0] for x in READ_BY} <= names
    assert set().union(*READ_BY.values()) == set(TOPOLOGIES)


def test_a_part_that_refuses_a_field_itself_says_it_alone():
    """Where it is not the topology's: then that is said."""
    wrong = WorkersConfig(num_shards=3)
    assert problems(topology="workers", workers=wrong) == ""
    (told,) = errors.problems(cli.Args(topology="workers", workers=wrong))
    assert told.startswith("workers.num_shards is for store = server; lock has one")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--optimizer.decay 0.99", "optimizer.decay is for name = rmsprop, not adam"),
        ("--delays.delay=4", "delays.delay is for topology = delayed, not compiled"),
        ("--network.memory-width 128", "network.memory_width is for memory = lstm, gr"),
        ("--threads.supervision.no-check-bounds --topology workers",
         "threads.supervision.check_bounds is for topology = threads, not workers"),
        ("--topology delayed --delays.tail 1.5", "delays.tail is for model = heavy_ta"),
    ],
)  # fmt: skip
def test_an_option_that_changes_nothing_is_refused_with_its_default_too(
    options, said, capsys
):
    with pytest.raises(SystemExit):
        cli.parse(cli.Args, options.split())
    first, line, _ = capsys.readouterr().err.splitlines()
    assert "a problem" in first and line.startswith(f"  {said}") and "leave it" in line
    assert cli.parse(cli.Args, []) == cli.Args()


def test_a_preset_may_have_what_a_choice_leaves_unread():
    @dataclass(frozen=True)
    class Recurrent(cli.Args):
        network: NetworkConfig = NetworkConfig(memory="lstm", memory_width=32)

    argv = ["--network.memory", "none"]
    assert cli.parse(Recurrent, argv).network.memory_width == 32


def test_rules_of_what_is_read_name_fields_and_values_that_there_are():
    """Of every part of every experiment."""

    def check(config):
        names = {x.name for x in fields(config)}
        for field, (other, values) in getattr(config, "read_if", {}).items():
            assert field in names and other in names and values
            assert not isinstance(values, str)
            hint = get_type_hints(type(config))[other]
            choices = (True, False) if hint is bool else get_args(hint)
            # Of a path or a name any word is a choice.
            choices = values if str in choices else choices
            assert set(values) <= {*choices} or None in values
        for name in names:
            if is_dataclass(part := getattr(config, name)):
                check(part)

    for name in presets.SUMMARIES:
        check(presets.get(name).config())


@dataclass(frozen=True)
class Compiled(cli.Args):
    topologies: ClassVar[tuple[str, ...]] = ("compiled",)


@dataclass(frozen=True)
class InThreads(cli.Args):
    topologies: ClassVar[tuple[str, ...]] = ("compiled", "threads")
    lacks: ClassVar[str] = "it has no halves"
    threads: ThreadsConfig = ThreadsConfig(num_actors=1, schedule="lockstep")


def test_topologies_of_a_script_are_named_where_another_is_refused():
    assert not problems(Compiled)
    assert problems(Compiled, topology="threads") == (
        "topology must be compiled here, got threads"
    )
    assert problems(InThreads, topology="workers") == (
        "topology must be compiled or threads here, got workers: it has no halves"
    )


@pytest.mark.parametrize(
    ("preset", "misspelled", "said"),
    [
        ("a2c", {"topology": "thread"}, "topology: .*; did you mean 'threads'"),
        ("a2c", {"backend": "envpol"}, "backend: .*; did you mean 'envpool'"),
        ("a2c", {"env_name": "CartPol-v1"}, "env_name: .* mean 'CartPole-v1'"),
        (
            "actor_learner_distillation",
            {"method": "distilation"},
            "method: .* mean 'distillation'",
        ),
        ("actor_learner_distillation", {"algorithm": "vmpoo"}, "mean 'vmpo'"),
    ],
)
def test_a_misspelled_choice_is_refused_in_python_before_anything_is_made(
    preset, misspelled, said
):
    experiment = presets.get(preset)
    args = experiment.config()
    for name, value in misspelled.items():
        # What a user types is not checked on its way, as it is in these tests.
        object.__setattr__(args, name, value)
    with pytest.raises(TrainingError, match=said):
        experiment.run(args)


def test_a_preset_may_have_settings_of_a_topology_that_is_not_chosen():
    assert not problems(InThreads) and not problems(InThreads, topology="threads")
    changed = ThreadsConfig(num_actors=1, schedule="free")
    assert "threads.schedule is for topology = threads, not compiled" in problems(
        InThreads, threads=changed
    )


def test_simulators_are_for_threads_and_workers():
    pytest.importorskip("gymnasium")
    for topology in TOPOLOGIES:
        found = problems(topology=topology, env_name="LunarLander-v3")
        assert (found == "") == (topology in (*SIMULATED, "fleet"))
    assert problems(env_name="LunarLander-v3") == (
        "env_name: LunarLander-v3 is a simulator's, which topology = compiled cannot"
        " compile: take threads or workers"
    )
    told = problems(Compiled, env_name="LunarLander-v3")
    assert told.endswith("topology = compiled cannot compile")
    told = problems(topology="workers", env_name="Cartpole-v1", backend="gymnasium")
    assert "did you mean 'CartPole-v1'?" in told


def test_only_simulators_have_an_info_to_log():
    named = TrainingConfig(info_metrics=("energy", "is_success"))
    assert problems(training=named) == (
        "info_metrics: CartPole-v1 is compiled, and logs all it tells: leave it out,"
        " got energy, is_success"
    )
    assert problems(masked=True) == (
        "masked: CartPole-v1 is compiled, and shows its masks by itself if it has any:"
        " leave it out"
    )
    pytest.importorskip("gymnasium")
    for asked in ({"training": named}, {"masked": True}):
        assert not problems(topology="threads", backend="gymnasium", **asked)


def test_an_evaluation_has_a_bound():
    """S13: greedy actions that push a wall, for ever."""
    pytest.importorskip("gymnasium")
    wall = {"env_name": "CliffWalking-v1", "topology": "threads"}
    told = problems(**wall)
    assert told.startswith("evaluation_max_steps: CliffWalking-v1 has no time limit")
    assert problems(backend="gymnasium", **wall) == told
    bounded = TrainingConfig(evaluation_max_steps=200)
    assert problems(training=bounded, **wall) == ""


@pytest.mark.parametrize("topology", SIMULATED)
def test_simulators_of_an_actor_or_worker_are_its_share(topology):
    pytest.importorskip("gymnasium")
    args = cli.Args(topology=topology, backend="gymnasium", show_previous=True)
    env = args.make_host_env(random.key(0))
    assert env.num_envs == {"threads": 16, "workers": 8}[topology]
    assert env.reset().obs.reward.shape == (env.num_envs,)
    env.close()


def test_a_backend_makes_a_simulator_of_any_name():
    pytest.importorskip("gymnasium")
    assert cli.Args().is_pure and not cli.Args(backend="auto").is_pure
    assert not cli.Args(env_name="LunarLander-v3").is_pure


def test_pure_environments_are_simulators_for_threads():
    args = cli.Args(topology="threads", show_previous=True)
    env = args.make_host_env(random.key(0))
    assert isinstance(env, HostEnvironment) and env.num_envs == 16
    assert isinstance(env.observation_spec, WithPrevious)


def test_minibatches_divide_what_a_device_learns_from():
    """Rows, where there is no memory and the agent learns from rows."""

    @dataclass(frozen=True)
    class Sequences(cli.EpochArgs):
        learns_from_rows: ClassVar[bool] = False

    sizes = {"num_envs": 6, "unroll_length": 10, "num_minibatches": 4}
    lstm = NetworkConfig(memory="lstm")
    assert not problems(cli.EpochArgs, **sizes)
    told = "num_minibatches must divide the {} rows or sequences of a device, got 4"
    assert problems(cli.EpochArgs, **sizes, network=lstm) == told.format(6)
    assert problems(Sequences, **sizes) == told.format(6)
    assert problems(cli.EpochArgs, **sizes, num_devices=2) == told.format(30)
    threads = ThreadsConfig(num_actors=3, unrolls_per_update=1)
    sizes |= {"topology": "threads", "threads": threads}
    assert not problems(cli.EpochArgs, **sizes)
    assert problems(Sequences, **sizes) == told.format(2)
    sizes |= {"num_minibatches": 0, "num_epochs": 0}
    assert "num_epochs must be at least 1, got 0" in problems(cli.EpochArgs, **sizes)


@pytest.mark.parametrize("topology", ["delayed", "workers"])
def test_several_updates_of_a_trajectory_are_refused_where_gradients_are_late(topology):
    assert problems(cli.EpochArgs, topology=topology) == (
        "num_epochs * num_minibatches must be 1 here, got 16: topology"
        f" {topology} puts time between a gradient and its use, and this learner has no"
        " halves (contribute, apply): it makes several updates of a trajectory, or"
        " carries state from one to the next. Several are for compiled or threads"
    )
    once = {"num_epochs": 1, "num_minibatches": 1}
    assert not problems(cli.EpochArgs, topology=topology, **once)


THREADS = [
    ({}, {}, "1"),
    ({"num_envs": 512, "network": NetworkConfig(widths=(256,))}, {}, None),
    ({"network": NetworkConfig(memory="lstm", memory_width=512)}, {}, None),
    ({"num_envs": 512, "network": NetworkConfig(widths=(256,)), "xla_threads": 2}, {},
     "2"),
    ({}, {"NPROC": "3"}, "3"),
    ({"topology": "delayed"}, {}, "1"),
    ({"topology": "workers"}, {}, None),
    ({"topology": "threads"}, {}, None),
    ({"num_devices": 2}, {}, None),
]  # fmt: skip


@pytest.mark.parametrize(("options", "environment", "chosen"), THREADS)
def test_small_programs_have_one_thread(options, environment, chosen, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("NPROC", "")  # taken back at the end, whatever is set here
    monkeypatch.delenv("NPROC")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    choose_threads(cli.Args(**options))
    assert os.environ.get("NPROC") == chosen
    if chosen:
        assert xla_threads() == int(chosen)


@pytest.mark.parametrize(("given", "chosen"), [(None, False), ("true", True)])
def test_actors_compute_in_their_own_threads_unless_the_user_says(
    given, chosen, monkeypatch
):
    name = "jax_cpu_enable_async_dispatch"
    before = jax.config.values[name]
    monkeypatch.delenv(name.upper(), raising=False)
    if given:
        monkeypatch.setenv(name.upper(), given)
    jax.config.update(name, True)
    try:
        compute_in_place()
        assert jax.config.values[name] == chosen
    finally:
        jax.config.update(name, before)


@pytest.mark.parametrize(("platforms", "chosen"), [("cpu", "1"), ("", None)])
def test_the_host_of_an_accelerator_keeps_its_threads(platforms, chosen, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setenv("NPROC", "")  # taken back at the end, whatever is set here
    monkeypatch.delenv("NPROC")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [group])
    choose_threads(cli.Args())
    assert os.environ.get("NPROC") == chosen


FORCED = "--xla_force_host_platform_device_count="
DEVICES = [
    (dict(num_devices=2), {}, f"--a=b {FORCED}2"),
    (dict(num_devices=64), {}, f"--a=b {FORCED}64"),
    (dict(num_devices=65), {}, "--a=b"),
    (dict(num_devices=1), {}, "--a=b"),
    (dict(num_devices=4, hosts=Hosts("h:1", 2, 0)), {}, f"--a=b {FORCED}2"),
    (dict(num_devices=3, hosts=Hosts("h:1", 2, 0)), {}, "--a=b"),
    (dict(num_devices=4, hosts=Hosts(detect=True)), {}, "--a=b"),
    (dict(num_devices=2), {"XLA_FLAGS": f"{FORCED}8"}, f"{FORCED}8"),
    (dict(num_devices=2), {"JAX_PLATFORMS": ""}, "--a=b"),
]


@pytest.mark.parametrize(("options", "environment", "flags"), DEVICES)
def test_a_cpu_has_the_devices_that_are_asked_for(
    options, environment, flags, monkeypatch
):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [group])
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "--a=b")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    force_devices(cli.Args(num_envs=192, **options))
    assert os.environ["XLA_FLAGS"] == flags


def test_a_product_is_that_of_a_minibatch():
    assert cli.Args().largest_product() == 32 * 32 * 64**2
    assert cli.EpochArgs(num_minibatches=4).largest_product() == 32 * 8 * 64**2
    gtrxl = NetworkConfig(memory="gtrxl", memory_width=128)
    pictures = cli.EpochArgs(env_name="Breakout-MinAtar", num_minibatches=4)
    assert pictures.largest_product() == 32 * 8 * 64 * 400
    assert cli.Args(network=gtrxl).largest_product() == 4 * 32 * 32 * 128**2


MANY = TrainingConfig(evaluation_envs=10**5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 2**32}, "seed must be a whole number in [0, 4294967295], got "),
        ({"seed": -1}, "seed must be a whole number in [0, 4294967295], got -1"),
        ({"total_steps": 10**30}, "total_steps must be at most 1000000000000000, got "),
        ({"num_envs": 10**9}, "num_envs must be at most 1048576, got "),
        ({"unroll_length": 10**9}, "unroll_length must be at most 1048576, got "),
        ({"num_devices": 10**9}, "num_devices must be at most 1048576, got "),
        ({"xla_threads": 10**9}, "xla_threads must be at most 1024, got "),
        (
            {"num_envs": 2**14, "unroll_length": 2**14},
            "num_envs * unroll_length must be at most 134217728, got 16384 * 16384",
        ),
        (
            {"topology": "delayed", "total_steps": 10**15},
            "total_steps must be at most 12799999744 for topology = delayed here",
        ),
        (
            {"training": TrainingConfig(evaluation_episodes=10**9)},
            "evaluation_episodes must be at most 1000000, got ",
        ),
        (
            {"training": replace(MANY, evaluation_episodes=10**5)},
            "evaluation_episodes * evaluation_envs must be at most 100000000, got ",
        ),
        (
            {"training": TrainingConfig(checkpoint_minutes=float("inf"))},
            "checkpoint_minutes must be at most 1000000, got inf",
        ),
        (
            {"optimizer": OptimizerConfig(max_grad_norm=float("inf"))},
            "optimizer.max_grad_norm must be finite, got inf",
        ),
        (
            {"network": NetworkConfig(widths=(64, 10**9))},
            "network.widths[1] must be at most 65536, got ",
        ),
    ],
)
def test_numbers_out_of_reach_are_refused_with_their_bounds(changes, told):
    found = errors.problems(cli.Args(**changes), unnamed=tyro.conf.OmitArgPrefixes)
    assert len(found) == 1 and found[0].startswith(told)


def test_only_a_run_whose_end_changes_nothing_before_can_be_extended():
    still = OptimizerConfig(anneal=False)
    assert cli.Args().is_annealed and not cli.Args(optimizer=still).is_annealed
    assert cli.Args(optimizer=still, topology="delayed").is_annealed


def test_resets_are_of_what_is_trained_in():
    pooled = Resets("pooled", stagger=9)
    args = cli.Args(resets=pooled)
    assert args.problems() == []
    assert (args.training_env(4).stagger, args.make_env(4).stagger) == (9, 0)


def test_resets_are_refused_where_they_are_not_read():
    pooled = Resets("pooled")
    (found,) = cli.Args(topology="threads", resets=pooled).problems()
    assert "resets.kind is for topology = compiled, delayed or gossip" in found
    (found,) = replace(reinforce.Args(), resets=pooled).problems()
    assert "here each is played from its start" in found
    wrong = cli.Args(resets=Resets("pooled", pool_size=3))
    with pytest.raises(
        errors.RefusedError, match=r"resets\.pool_size must be a multiple of"
    ):
        errors.refuse(wrong)
