"""A config that is out of range is refused in Python as on the command line."""

import inspect
import re
from dataclasses import dataclass, field, fields, replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import loops
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.algorithms.distilled import DistilledConfig, distilled
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.algorithms.ppo import PPOConfig, ppo
from jaxrl_par.algorithms.q_learning import QConfig, q_learning
from jaxrl_par.algorithms.reinforce import ReinforceConfig, reinforce
from jaxrl_par.algorithms.vmpo import VMPOConfig, vmpo
from jaxrl_par.axis import Axis
from jaxrl_par.bridge.actor_learner import asked as actor_learner
from jaxrl_par.bridge.parameter_server import asked as parameter_server
from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.cli import parse
from jaxrl_par.errors import (
    RefusedError,
    above,
    at_least,
    below,
    not_between,
    not_finite,
    problems,
    refuse,
)
from jaxrl_par.loops import DistillationConfig, epochs, replayed
from jaxrl_par.networks import NetworkConfig, TransformerConfig, actor_critic, q_network
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.replay import uniform
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled, episodic
from jaxrl_par.topologies.delayed import delayed
from jaxrl_par.topologies.gossip import GossipConfig, gossip
from jaxrl_par.topologies.quorum import quorum
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, threads
from jaxrl_par.topologies.workers import WorkersConfig

ENV = probes.observation_reward(2)
NETWORK = actor_critic(*ENV.specs, NetworkConfig(widths=(4,)))
SGD = optax.sgd(0.1)
ALGORITHMS = {
    a2c: A2CConfig(gamma=2.0),
    impala: ImpalaConfig(gamma=2.0),
    ppo: PPOConfig(gamma=2.0),
    vmpo: VMPOConfig(gamma=2.0),
    reinforce: ReinforceConfig(gamma=2.0),
    q_learning: QConfig(gamma=2.0),
}


@dataclass(frozen=True)
class Args:
    a2c: A2CConfig = field(default_factory=A2CConfig)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda x: x.__name__)
def test_algorithms_refuse_a_config_that_is_out_of_range(algorithm):
    with pytest.raises(ValueError, match=r"^gamma must be in \[0, 1\], got 2.0$"):
        algorithm(NETWORK, SGD, ALGORITHMS[algorithm])


def test_the_command_line_says_the_same(capsys):
    with pytest.raises(SystemExit):
        parse(Args, ["--a2c.gamma", "2"])
    assert "\n  a2c.gamma must be in [0, 1], got 2.0\n" in capsys.readouterr().err


def test_other_constructors_refuse_too():
    with pytest.raises(ValueError, match="policy_cost must be at least 0, got -1"):
        distilled(NETWORK, SGD, DistilledConfig(policy_cost=-1.0))
    config = NetworkConfig(channels=0, transformer=TransformerConfig(num_layers=0))
    for make in actor_critic, q_network:
        with pytest.raises(ValueError, match="channels") as error:
            make(*ENV.specs, config)
        assert "; transformer.num_layers must be at least 1, got 0" in str(error.value)
    with pytest.raises(ValueError, match="decay must be below 1, got 1"):
        make_optimizer(OptimizerConfig(decay=1.0), 10)
    with pytest.raises(ValueError, match="total_env_steps must be at least 1, got 0"):
        make_optimizer(OptimizerConfig(), 0)
    agent = ppo(NETWORK, SGD)
    with pytest.raises(ValueError, match="num_minibatches must be at least 1, got 0"):
        epochs(agent, 2, num_minibatches=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        replayed(agent, uniform(capacity=4, batch_size=0))


def test_a_choice_is_refused_with_the_nearest_that_is_valid():
    config = A2CConfig(gae_lambda=-1.0)
    # The tests check types when a config is made; whoever uses the package does not.
    object.__setattr__(config, "reduction", "men")
    with pytest.raises(ValueError, match="did you mean 'mean'") as error:
        a2c(NETWORK, SGD, config)
    assert "gae_lambda must be in [0, 1], got -1.0; reduction: " in str(error.value)


def test_traced_numbers_are_accepted():
    def gradient_size(number):
        config = A2CConfig(gamma=number, gae_lambda=number, entropy_cost=number)
        a2c(NETWORK, SGD, config)
        impala(NETWORK, SGD, ImpalaConfig(max_rho=number, epsilon=number))
        impala(NETWORK, SGD, ImpalaConfig(max_c=number))
        make_optimizer(OptimizerConfig(learning_rate=number), 10)
        return number

    values = jnp.array([0.5, 0.9])
    assert jax.vmap(gradient_size)(values).tolist() == values.tolist()


def test_what_is_known_is_refused_beside_what_is_traced():
    def make(gamma):
        a2c(NETWORK, SGD, A2CConfig(gamma=gamma, gae_lambda=3.0))
        return gamma

    with pytest.raises(ValueError, match=r"^gae_lambda must be in \[0, 1\], got 3.0"):
        jax.jit(make)(0.5)


@dataclass(frozen=True)
class Plain:
    """Defined here, where the tests do not check types when a config is made."""

    rate: float = 1.0
    count: int | None = None
    name: str = "x"
    flag: bool = True
    widths: tuple[int, ...] = (1,)
    part: A2CConfig = A2CConfig()

    def problems(self) -> list[str]:
        return above(self, rate=0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rate": "1e-3"}, "rate must be float, got '1e-3'"),
        ({"rate": float("nan")}, "rate must be float, got nan"),
        ({"rate": True}, "rate must be float, got True"),
        ({"count": 1.5}, "count must be int or None, got 1.5"),
        ({"name": None}, "name must be str, got None"),
        ({"flag": 1}, "flag must be bool, got 1"),
        ({"widths": 64}, "widths must be a list of int, got 64"),
        ({"widths": (64, "8")}, "widths must be a list of int, got (64, '8')"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_field(given, said):
    assert problems(Plain(**given)) == [said]


def test_numbers_of_numpy_and_arrays_are_numbers():
    config = Plain(
        np.float32(1.0), np.int64(3), widths=[1, np.int32(2)], part=A2CConfig(gamma=0.5)
    )
    assert problems(config) == []
    assert problems(Plain(jnp.float32(1.0), widths=jnp.arange(3))) == []
    with pytest.raises(ValueError, match="unroll_length must be int, got '5'"):
        untyped(refuse)(unroll_length="5")


def untyped(function):
    """As users call it: the tests check types first."""
    return inspect.unwrap(function)


EVERY = [*ALGORITHMS, distilled]


@pytest.mark.parametrize("algorithm", EVERY, ids=lambda x: x.__name__)
def test_algorithms_name_the_argument_that_is_wrong_and_what_is_right(algorithm):
    for given, said in (
        (
            (NETWORK, 1e-3),
            "optimizer must be an optax.GradientTransformation, as .* 0.001",
        ),
        ((NETWORK.apply, SGD), "network must be a Network, as .*, got function"),
        (
            (NETWORK, SGD, DistillationConfig()),
            "config must be a .*, got DistillationC",
        ),
        ((NETWORK, SGD, {"gamma": 0.9}), "config must be a .*Config, got dict"),
    ):
        with pytest.raises(ValueError, match=said):
            untyped(algorithm)(*given)


class Simulator:
    """As Gymnasium's: `reset` takes a seed by keyword."""

    def reset(self, *, seed=None): ...
    def step(self, action): ...


def test_topologies_name_the_argument_that_is_wrong_and_what_is_right():
    agent, schedule = a2c(NETWORK, SGD), loops.schedules.in_turn(1, 1)
    pure = "env must be an Environment, as envs.make makes, got Simulator: .*envs.host"
    with pytest.raises(ValueError, match=r"a learner must be an Agent.* got Network"):
        untyped(loops.learner_of)(NETWORK)
    for make in compiled, episodic:
        with pytest.raises(ValueError, match=pure):
            untyped(make)(agent, Simulator(), 5)
    with pytest.raises(ValueError, match=pure):
        untyped(delayed)(agent, Simulator(), 5, schedule, num_workers=1)
    maker = "make_env must be a function from a key to simulators .*, got "
    for env in Simulator(), ENV:
        with pytest.raises(ValueError, match=maker):
            untyped(threads)(agent, env, 5, ThreadsConfig(), data_mesh(1))


def test_schedules_meshes_and_configs_that_are_none_are_named():
    agent, few = a2c(NETWORK, SGD), {"num_workers": 1}
    parts = agent, lambda key: None, 5
    told = "schedule must be a Schedule, as .* make, got "
    with pytest.raises(RefusedError, match=f"{told}NoneType"):
        untyped(delayed)(agent, ENV, 5, None, **few)
    with pytest.raises(RefusedError, match=f"{told}int: 3"):
        untyped(gossip)(agent, ENV, 5, GossipConfig(), schedule=3)
    with pytest.raises(RefusedError, match="rounds must be Rounds, as"):
        untyped(quorum)(agent, ENV, 5, loops.schedules.in_turn(1, 1), **few)
    with pytest.raises(RefusedError, match=r"config must be a .*; mesh must be a Mesh"):
        untyped(gossip)(agent, ENV, 5, WorkersConfig(), mesh=2)
    with pytest.raises(RefusedError, match=r"config must be a .*; mesh must be a Mesh"):
        untyped(actor_learner.asked)(*parts, WorkersConfig(), 2, Axis("data"))
    with pytest.raises(RefusedError, match=r"config must be a WorkersConfig, got Thr"):
        untyped(parameter_server.asked)(*parts, ThreadsConfig(), None)


def test_bounds():
    numbers = SimpleNamespace(x=1.0, y=None, z=(0, 2), nan=float("nan"))
    assert at_least(numbers, x=1, y=1) == above(numbers, x=0, y=0) == []
    assert below(numbers, x=2) == not_between(numbers, x=(1, 1)) == []
    assert at_least(numbers, z=1) == ["z[0] must be at least 1, got 0"]
    assert at_least({"a": 1, "b": 2}, a="b") == ["a must be at least b = 2, got 1"]
    assert above(numbers, x=1.0) == ["x must be above 1.0, got 1.0"]
    assert below(numbers, x=1) == ["x must be below 1, got 1.0"]
    for found in (
        at_least(numbers, nan=0),
        above(numbers, nan=0),
        below(numbers, nan=0),
        not_between(numbers, nan=(0, 1)),
    ):
        assert len(found) == 1


def test_all_problems_are_listed_at_once():
    with pytest.raises(ValueError) as error:
        refuse(A2CConfig(gamma=2.0), PPOConfig(clip=0.0), num_epochs=0, length=None)
    assert str(error.value) == (
        "gamma must be in [0, 1], got 2.0; clip must be above 0, got 0.0; num_epochs"
        " must be at least 1, got 0"
    )
    assert problems(Args(A2CConfig(gamma=2.0))) == [
        "a2c.gamma must be in [0, 1], got 2.0"
    ]


@dataclass(frozen=True)
class Numbers:
    may_be_infinite = ("bar",)
    count: int = 1
    rate: float = 1.0
    bar: float = 1.0
    sizes: tuple[int, ...] = ()
    maybe: int | None = None
    total_steps: int = 1
    seed: int = 0


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("count", 2**31, "at most 2147483647"),
        ("count", 10**400, "at most 2147483647, got an integer of 1329 bits"),
        ("count", 1.5, "int"),
        ("count", 1e6, "int"),
        ("count", True, "int"),
        ("sizes[1]", (1, 2**40), "at most 2147483647"),
        ("maybe", 2**31, "at most 2147483647"),
        ("total_steps", 10**15 + 1, "at most 1000000000000000"),
        ("seed", 2**32, "at most 4294967295"),
        ("rate", float("inf"), "finite"),
        ("rate", float("nan"), "float"),
        ("rate", 1e39, r"at most 3.4028235e\+38"),
        ("rate", 10**400, r"at most 3.4028235e\+38"),
        ("bar", float("-inf"), "finite"),
        ("bar", float("nan"), "float"),
    ],
)
def test_numbers_that_no_program_holds_are_refused(name, value, told):
    config = Numbers()
    object.__setattr__(config, name.partition("[")[0], value)
    with pytest.raises(ValueError, match=rf"^{re.escape(name)} must be {told}"):
        refuse(config)


@dataclass(frozen=True)
class Shared:
    """What computes with a part's numbers, as presets do."""

    total: int = 6
    part: Numbers = field(default_factory=Numbers)

    def problems(self) -> list[str]:
        remaining = self.total % self.part.count
        return [f"total must be a multiple, got {self.total}"] if remaining else []


@pytest.mark.parametrize("count", [0, "2", None])
def test_what_computes_with_a_part_is_asked_when_that_is_right(count):
    @dataclass(frozen=True)
    class Counted(Numbers):
        def problems(self) -> list[str]:
            return at_least(self, count=1)

    (line,) = problems(Shared(part=Counted(count=count)))
    assert line.startswith("part.count must be ")
    assert problems(Shared(total=7, part=Counted(count=2))) == [
        "total must be a multiple, got 7"
    ]
    with pytest.raises(ZeroDivisionError):  # a mistake in a config keeps its trace
        problems(Shared(part=Numbers(count=0)))


def test_a_cost_below_0_is_refused():
    for config in (A2CConfig, PPOConfig, ImpalaConfig, VMPOConfig, ReinforceConfig):
        (line,) = problems(config(value_cost=-1.0))
        assert line == "value_cost must be at least 0, got -1.0"


def test_numbers_that_a_program_holds_are_accepted():
    config = Numbers()
    numbers = {"count": np.int64(2**31 - 1), "total_steps": 10**15, "bar": np.inf}
    for name, value in (numbers | {"rate": 1, "maybe": 3}).items():
        object.__setattr__(config, name, value)
    assert problems(config) == []


def test_a_number_that_is_none_or_not_finite_is_told():
    wrong = [np.nan, np.inf, -np.inf, 1e39, 10**400, "2", None, True, np.ones(2)]
    for value in wrong:
        (line,) = not_finite(rate=1, factor=value)
        assert line.startswith("factor must be a finite number, got ")
        assert len(line) < 110
    assert not_finite(a=0, b=-1.5, c=np.float32(2), d=jnp.array(jnp.nan)) == []


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_no_algorithm_takes_a_number_that_is_not_finite(value):
    """But for bars, of which infinity says that there is none."""
    configs = [config for config in ALGORITHMS.values()]
    for config in [*configs, DistilledConfig(), OptimizerConfig(), SupervisionConfig()]:
        good = type(config)()
        for field_ in fields(config):
            if isinstance(getattr(good, field_.name), float):
                bad = replace(good, **{field_.name: value})
                bars = getattr(config, "may_be_infinite", ())
                accepted = field_.name in bars and value > 0
                assert accepted or problems(bad), (config, field_.name)
    assert problems(ImpalaConfig(max_rho=float("inf"), max_c=float("inf"))) == []
