"""Owns what a running stack writes down about itself: who supervises it, how far it is, its processes.

Guarantees: the file is replaced whole, so readers see one state or the next; processes are written with their
start time, so a file left by a crash or a reboot never points at a stranger. It is a convenience for
`status`: what must be found after a crash is found by the tags of the processes themselves.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.dev.stack.processes import Identity, Tagged, alive

STARTING = "starting"
READY = "ready"
STOPPING = "stopping"


@dataclass(slots=True)
class RunState:
    """One run of a supervisor. `services` holds every process it wants, None for one that does not run.

    `exits` holds the exit codes of those that ended and have not been ready since.
    """

    run: str
    supervisor: Identity
    phase: str = STARTING
    ports: dict[str, int] = field(default_factory=dict)
    services: dict[str, Identity | None] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        """Replace the file. Raises OSError, a full disk for one."""
        document = {
            "run": self.run,
            "supervisor": _pair(self.supervisor),
            "phase": self.phase,
            "ports": self.ports,
            "services": {name: _pair(identity) for name, identity in self.services.items()},
            "exits": self.exits,
        }
        unfinished = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            unfinished.write_text(json.dumps(document), "utf-8")
            unfinished.replace(file)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise

    @property
    def supervised(self) -> bool:
        """Whether the supervisor of this run still lives."""
        return alive(self.supervisor)

    def living(self) -> dict[str, Identity]:
        """The processes that were written down and still run."""
        return {name: one for name, one in self.services.items() if one is not None and alive(one)}

    def tagged(self) -> list[Tagged]:
        """The living processes in the form in which they are found by their tags."""
        return [Tagged(identity, name, self.run) for name, identity in self.living().items()]


def load(file: Path) -> RunState | None:
    """What was last written down; None when nothing was, or nothing that can be read."""
    try:
        found: Any = json.loads(file.read_text("utf-8"))
        supervisor = _identity(found["supervisor"])
        if supervisor is None:
            return None
        return RunState(
            run=str(found["run"]),
            supervisor=supervisor,
            phase=str(found["phase"]),
            ports={str(name): int(port) for name, port in found["ports"].items()},
            services={str(name): _identity(pair) for name, pair in found["services"].items()},
            exits={str(name): int(code) for name, code in found.get("exits", {}).items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _pair(identity: Identity | None) -> list[int] | None:
    return None if identity is None else [identity.pid, identity.started]


def _identity(pair: list[int] | None) -> Identity | None:
    return None if pair is None else Identity(int(pair[0]), int(pair[1]))
