"""Where the processes of one run find each other."""

from dataclasses import dataclass

from jaxrl_par.errors import above, at_least, at_most

_MOST_PROCESSES = 2**16


@dataclass(frozen=True)
class HostsConfig:
    """Several processes that train together, on one host or many.

    Each is started with the same command line but for `process_id`. None, or
    `num_processes` = 1, is a run of one process.
    """

    coordinator: str | None = None
    """HOST:PORT at which process 0 listens, on that address alone, and where the others
    find it. It must be an address of process 0's machine that they reach."""
    num_processes: int | None = None
    """Processes that train together."""
    process_id: int | None = None
    """The number of this one. Process 0 alone writes files and progress."""
    detect: bool = False
    """Find all three as jax does, under SLURM, Kubernetes or Open MPI. Never by itself:
    who trains in an allocation of several tasks may want as many runs."""
    join_seconds: float = 60.0
    """Seconds to wait at the start until all processes are there."""
    silence: float = 10.0
    """Seconds after which a process that is not heard any more is taken for lost; all
    others then end with code 75."""
    patience: float = 600.0
    """Seconds that a chunk of log_interval updates may take, with what is compiled,
    evaluated and saved beside it. After that a process is taken to hang, and all end
    with 75."""

    @property
    def is_given(self) -> bool:
        """Whether there is anything said of other processes."""
        return self.detect or self.num_processes is not None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `coordinator`."""
        host, _, port = (self.coordinator or "").rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)

    def problems(self) -> list[str]:
        """What is out of range, or missing."""
        found = at_least(self, num_processes=1, process_id=0, join_seconds=1)
        found += at_most(self, num_processes=_MOST_PROCESSES, join_seconds=86_400)
        found += at_least(self, silence=1) + above(self, patience=0)
        found += at_most(self, silence=86_400, patience=10**7)
        if self.coordinator is not None and not _is_address(self.coordinator):
            told = "HOST:PORT, such as 10.0.0.1:7000 or [::1]:7000"
            found.append(f"coordinator must be {told}, got {self.coordinator!r:.60}")
        names = ("coordinator", "num_processes", "process_id")
        given = {name: getattr(self, name) for name in names}
        missing = [name for name, value in given.items() if value is None]
        if self.detect:
            found += [
                f"{name} is found by detect: leave one of them out, got {value}"
                for name, value in given.items()
                if value is not None
            ]
        elif len(missing) == len(names):
            found += [
                f"{name} is for several processes: leave it out, or give coordinator,"
                f" num_processes and process_id, got {getattr(self, name)}"
                for name in ("join_seconds", "silence", "patience")
                if getattr(self, name) != getattr(HostsConfig(), name)
            ]
        elif missing:
            found += [
                f"{name} is missing: coordinator, num_processes and process_id belong"
                " together"
                for name in missing
            ]
        elif not found and self.process_id is not None:
            highest = (self.num_processes or 1) - 1
            found += at_most(self, process_id=highest)
        return found


def _is_address(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
        return False
    return ":" not in host or (host.startswith("[") and host.endswith("]"))
