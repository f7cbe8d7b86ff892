"""Owns the answer to `holdfast status`: what runs, asked of the processes themselves, not of a file alone.

Guarantees: an answer within about 1.5 s, in the form of the contract (section 1.1). Reads only. A mode that
lives and waits for somebody else is told from one that is dead or does not answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from app.dev.stack import leftovers, ports, postgres, probes, state, valkey
from app.dev.stack.errors import CONFIGURATION
from app.dev.stack.folder import DataFolder
from app.dev.stack.modes import MODES
from app.dev.stack.service import tail
from app.dev.stack.temporal import NAMESPACE

READY, STARTING, DEGRADED, STOPPED = "ready", "starting", "degraded", "stopped"
SUPERVISOR = "supervisor"
_PROBE_TIMEOUT_S = 1.2
_SHOWN_MAX = 300


async def snapshot(folder: DataFolder) -> dict[str, Any]:
    """The stack in this folder as the contract describes it, with three extensions.

    `mails` tells where customers' mails can be read; `missing` what is dead or does not answer (`supervisor`
    too); `not_ready` the modes that live and wait, each with what it waits for.
    """
    written = state.load(folder.state_file)
    if written is None or not written.supervised:
        pids = {one.name: one.identity.pid for one in leftovers.find(folder)}
        if not pids:
            return document(folder, STOPPED, pids)
        wanted = written.services if written is not None else {}
        missing = [SUPERVISOR, *(name for name in wanted if name not in pids)]
        return document(folder, DEGRADED, pids) | {"missing": missing}
    pids = {name: identity.pid for name, identity in written.living().items()}
    if len(pids) < len(written.services):  # not written down, on a full disk for one
        pids |= {one.name: one.identity.pid for one in leftovers.find(folder, written.run)}
    known = ports.remembered(folder.ports_file)
    answers = await asyncio.gather(*(_awaited(name, known, pids) for name in written.services))
    found = dict(zip(written.services, answers, strict=True))
    missing = [name for name, waits_for in found.items() if waits_for is None]
    not_ready = {name: waits_for for name, waits_for in found.items() if waits_for}
    phases = {state.STARTING: STARTING, state.READY: DEGRADED if missing or not_ready else READY}
    extended = {"missing": missing, "not_ready": not_ready}
    return document(folder, phases.get(written.phase, DEGRADED), pids) | extended


def refusals(folder: DataFolder) -> dict[str, str]:
    """The modes that ended over a wrong setting (exit code 78), each with what it said last."""
    written = state.load(folder.state_file)
    exits = written.exits if written is not None and written.supervised else {}
    return {name: _last_words(folder, name) for name in MODES if exits.get(name) == CONFIGURATION}


def _last_words(folder: DataFolder, name: str) -> str:
    """The line about the setting, or the last one: what was at work says more while it stops."""
    lines = tail(folder.log(name)) or ["its log is empty"]
    said = [line for line in lines if line.startswith("holdfast: ")]
    return "".join(char for char in (said or lines)[-1] if char.isprintable())[:_SHOWN_MAX]


async def _awaited(name: str, known: dict[str, int], pids: dict[str, int]) -> list[str] | None:
    """What this process waits for (nothing: it serves); None when it is dead or does not answer."""
    port = known.get("temporal_http" if name == "temporal" else name)
    if port is None or name not in pids:
        return None
    if name in MODES:
        lives, failing = await asyncio.gather(
            probes.http_serves(port, "/livez", _PROBE_TIMEOUT_S),
            probes.failing_checks(port, _PROBE_TIMEOUT_S),
        )
        return failing if failing is not None or not lives else ["an answer"]
    return [] if await _serves(name, port) else None


async def _serves(name: str, port: int) -> bool:
    """Whether a server or the sandbox answers."""
    if name == "postgres":
        return await probes.postgres_serves(port, postgres.USER, postgres.DATABASE, _PROBE_TIMEOUT_S)
    if name == "redis":
        return await probes.redis_serves(port, _PROBE_TIMEOUT_S)
    if name == "temporal":
        return await probes.temporal_serves(port, NAMESPACE, _PROBE_TIMEOUT_S)
    return await probes.http_serves(port, "/livez", _PROBE_TIMEOUT_S)


def document(folder: DataFolder, found: str, pids: dict[str, int] | None = None) -> dict[str, Any]:
    """The form of the contract, from what is written down; without `pids`, those are from there too."""
    if pids is None:
        written = state.load(folder.state_file)
        pids = {name: one.pid for name, one in written.living().items()} if written is not None else {}
    known = ports.remembered(folder.ports_file)
    secrets = folder.known_secrets()
    modes = {name: [pids[name]] if name in pids else [] for name in MODES}

    def address(name: str, scheme: str = "") -> str | None:
        return f"{scheme}{probes.HOST}:{known[name]}" if name in known else None

    return {
        "state": found,
        "api_key": secrets.api_key if secrets is not None else None,
        "gateway": {"url": address("gateway", "http://"), "pids": modes["gateway"]},
        "worker": {"pids": modes["worker"], "health_url": address("worker", "http://")},
        "consumer": {"pids": modes["consumer"], "health_url": address("consumer", "http://")},
        "postgres": {
            "dsn": postgres.dsn_of(folder.place("postgres"), known.get("postgres", 0)),
            "pid": pids.get("postgres"),
        },
        "redis": {
            "url": valkey.url_of(known["redis"]) if "redis" in known else None,
            "pid": pids.get("redis"),
        },
        "temporal": {
            "address": address("temporal"),
            "namespace": NAMESPACE,
            "ui_url": address("temporal_ui", "http://"),
            "pid": pids.get("temporal"),
        },
        "sandbox": {"url": address("sandbox", "http://"), "pid": pids.get("sandbox")},
        "mails": {"url": f"{address('sandbox', 'http://')}/mails" if "smtp" in known else None},
        "missing": [],
        "not_ready": {},
    }
