"""Parts of a fleet that are no processes: what they are told is noted."""

from dataclasses import dataclass, field
from typing import Any

from jaxrl_par.fleet import cluster, recipe
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.fleet.messages import Hello, Shown
from jaxrl_par.fleet.processes import Slot
from jaxrl_par.fleet.published import Published

HERE = recipe.software()


class FakeCall(cluster.Call):
    def __init__(self, answer: Any):
        self.answer = answer

    def ready(self, seconds: float) -> bool:
        return self.answer is not None

    def result(self) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer[0]


@dataclass
class FakeHandle(cluster.Handle):
    """Answers by method, None while it does not."""

    answers: dict[str, Any]
    asked: list[tuple] = field(default_factory=list)
    killed: bool = False

    def call(self, method: str, *arguments: Any, group: str | None = None) -> FakeCall:
        self.asked.append((method, *arguments))
        answer = self.answers.get(method, (None,))
        return FakeCall(answer(*arguments) if callable(answer) else answer)

    def kill(self) -> None:
        self.killed = True


@dataclass
class FakeCluster(cluster.Cluster):
    answers: dict[str, Any]
    is_local: bool = True
    made: list[FakeHandle] = field(default_factory=list)
    stored: list[Any] = field(default_factory=list)

    def make(self, kind: type, *arguments: Any, **options: Any) -> FakeHandle:
        self.made.append(FakeHandle(self.answers))
        return self.made[-1]

    def full_name(self, name: str) -> str:
        return f"ours-{name}"

    def put(self, value: Any) -> Any:
        self.stored.append(value)
        return len(self.stored) - 1

    def room(self) -> str:
        return "0 of 2 processors are free"


class FakePublished(Published):
    def __init__(self):
        self.lost = 0

    @property
    def holder(self) -> str:
        return "ours"


SHOWN = Shown("Toy", 2, None, None)
HELLO = {"hello": (Hello("actor 0, process 1 on here", 1, HERE),), "build": (None,)}
SETTINGS = recipe.Settings({}, {}, [])


def slot(answers: dict[str, Any], **config: Any) -> tuple[Slot, FakeCluster]:
    there: Any = FakeCluster(answers)
    return Slot(there, FleetConfig(**config), "actor 0", SETTINGS, b""), there
