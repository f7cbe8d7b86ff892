"""Owns what the processes of this program itself are told in a development stack: arguments and environment.

The three modes, the sandbox providers, and the two tasks before them (migrations, seed). A table made from
the ports and the secrets; no state.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import app
from app.dev.stack import probes
from app.dev.stack.folder import DataFolder, Secrets
from app.dev.stack.processes import tag
from app.dev.stack.service import Spec
from app.dev.stack.stops import SHUTDOWN_TIMEOUT_S, STOPS, of_mode
from app.dev.stack.temporal import NAMESPACE
from app.dev.stack.valkey import url_of

MODES = ("gateway", "worker", "consumer")
CARRIER_EVENTS = "/v1/carrier-events"
_PROGRAM = (sys.executable, "-m", "app")
_START_TIMEOUT_S = 60.0
_TASK_TIMEOUT_S = 120.0
# Settings for other servers than those of this stack; what else the user has set is passed on.
_NOT_PASSED = (
    "MODE",
    "PORT",
    "HEALTH_PORT",
    "REDIS_DB",
    "TEMPORAL_TLS_CERT",
    "TEMPORAL_TLS_KEY",
    "TEMPORAL_API_KEY",
)


def python_environment() -> dict[str, str]:
    """The user's environment, with this program importable from any folder."""
    root = str(Path(app.__path__[0]).resolve().parent)
    paths = [root, *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True, slots=True)
class Plan:
    """The processes of one run of a stack."""

    folder: DataFolder
    run: str
    ports: Mapping[str, int]
    secrets: Secrets

    @property
    def gateway_url(self) -> str:
        """Where the API is."""
        return f"http://{probes.HOST}:{self.ports['gateway']}"

    @property
    def sandbox_url(self) -> str:
        """Where the payment provider and the carrier of development are."""
        return f"http://{probes.HOST}:{self.ports['sandbox']}"

    @property
    def smtp_url(self) -> str:
        """Where mails go in development: to the sandbox, which delivers to nobody."""
        return f"smtp://{probes.HOST}:{self.ports['smtp']}"

    def tag(self, name: str) -> dict[str, str]:
        """What marks a process as one of this run."""
        return tag(name, self.run, self.folder.path)

    def environment(self, name: str, dsn: str) -> dict[str, str]:
        """The environment of a mode or a task (CONTRACT, section 2)."""
        env = {key: value for key, value in python_environment().items() if key not in _NOT_PASSED}
        env.setdefault("LOG_FORMAT", "console")
        env.setdefault("SHUTDOWN_TIMEOUT_S", f"{SHUTDOWN_TIMEOUT_S:g}")
        return env | {
            **self.tag(name),
            "ENVIRONMENT": "dev",
            "LISTEN_HOST": probes.HOST,  # nothing of a development stack is for the network
            "DATABASE_URL": dsn,
            "REDIS_URL": url_of(self.ports["redis"]),
            "TEMPORAL_ADDRESS": f"{probes.HOST}:{self.ports['temporal']}",
            "TEMPORAL_NAMESPACE": NAMESPACE,
            "STRIPE_API_KEY": self.secrets.stripe_api_key,
            "STRIPE_API_BASE": self.sandbox_url,
            "CARRIER_URL": self.sandbox_url,
            "CARRIER_WEBHOOK_SECRET": self.secrets.carrier_webhook_secret,
            "SMTP_URL": self.smtp_url,
        }

    def sandbox(self) -> Spec:
        """The sandbox providers."""
        port = self.ports["sandbox"]
        place = self.folder.place("sandbox")
        ports = ("--port", str(port), "--smtp-port", str(self.ports["smtp"]))
        arguments = (*ports, "--data", str(place / "sandbox.sqlite3"))
        return Spec(
            name="sandbox",
            argv=(*_PROGRAM, "sandbox", *arguments, "--webhook-url", self.gateway_url + CARRIER_EVENTS),
            env=python_environment()
            | self.tag("sandbox")
            | {"CARRIER_WEBHOOK_SECRET": self.secrets.carrier_webhook_secret},
            cwd=self.folder.path,
            log=self.folder.log("sandbox"),
            port=port,
            probe=lambda: probes.http_serves(port, "/livez"),
            stop_steps=STOPS["sandbox"],
            start_timeout_s=_START_TIMEOUT_S,
        )

    def task(self, name: str, dsn: str) -> Spec:
        """`migrate` or `seed`: a process that does something once."""
        return Spec(
            name=name,
            argv=(*_PROGRAM, name),
            env=self.environment(name, dsn) | {"HOLDFAST_DEV_API_KEY": self.secrets.api_key},
            cwd=self.folder.path,
            log=self.folder.log(name),
            port=0,
            probe=_never,
            stop_steps=STOPS[name],
            start_timeout_s=_TASK_TIMEOUT_S,
        )

    def mode(self, name: str, dsn: str) -> Spec:
        """A gateway, a worker or a consumer."""
        port = self.ports[name]
        env = self.environment(name, dsn) | {"MODE": name}
        env["PORT" if name == "gateway" else "HEALTH_PORT"] = str(port)
        try:
            stop_steps = of_mode(float(env["SHUTDOWN_TIMEOUT_S"]))
        except ValueError:
            stop_steps = of_mode()  # the mode itself refuses the value by name
        return Spec(
            name=name,
            argv=_PROGRAM,
            env=env,
            cwd=self.folder.path,
            log=self.folder.log(name),
            port=port,
            probe=lambda: probes.http_serves(port, "/readyz"),
            stop_steps=stop_steps,
            start_timeout_s=_START_TIMEOUT_S,
        )


async def _never() -> bool:
    return False
