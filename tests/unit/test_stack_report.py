"""What `holdfast up` and `holdfast status` print for people."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.dev.stack import report

ROOT = Path(__file__).parents[2]

DOCUMENT: dict[str, Any] = {
    "state": "ready",
    "api_key": "hf_dev_key",
    "gateway": {"url": "http://127.0.0.1:1", "pids": [1]},
    "worker": {"pids": [2], "health_url": "http://127.0.0.1:2"},
    "consumer": {"pids": [3], "health_url": "http://127.0.0.1:3"},
    "postgres": {"dsn": "postgresql://x", "pid": 4},
    "redis": {"url": "redis://x", "pid": 5},
    "temporal": {"address": "127.0.0.1:6", "namespace": "n", "ui_url": "http://127.0.0.1:7", "pid": 6},
    "sandbox": {"url": "http://127.0.0.1:8", "pid": 7},
    "mails": {"url": "http://127.0.0.1:8/mails"},
    "missing": [],
    "not_ready": {},
}
NOTHING: dict[str, Any] = {"pids": [], "url": None, "health_url": None, "pid": None}


def servers_only(state: str) -> dict[str, Any]:
    """A stack without the platform in it."""
    modes = dict.fromkeys(("gateway", "worker", "consumer", "sandbox"), NOTHING)
    return {**DOCUMENT, **modes, "mails": {"url": None}, "api_key": None, "state": state}


@pytest.mark.parametrize("state", ["ready", "starting", "degraded"])
def test_status_says_what_up_said(state: str):
    """The key, where mails are, and the variables of the documents: another shell needs them."""
    status = report.status({**DOCUMENT, "state": state})
    assert report.names(DOCUMENT) in report.summary(DOCUMENT, "ready")
    assert report.names(DOCUMENT) in status
    lines = [line.split() for line in status.splitlines()]
    assert ["mails", "http://127.0.0.1:8/mails"] in lines
    assert ["API", "key", "hf_dev_key"] in lines


def test_the_variables_are_those_of_the_runbooks():
    """A shell that takes the command has each of them (*Before the first command* of their README)."""
    script = f"{report.names(DOCUMENT)}\nenv"
    told = subprocess.run(["sh", "-c", script], env={}, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs/runbooks/README.md").read_text(encoding="utf-8")
    exported = [line for line in page.splitlines() if line.startswith("$ export ")]
    wanted = {name for line in exported for name in re.findall(r"([A-Z_]+)=", line)}
    assert {"URL", "KEY", "DATABASE_URL", "REDIS_URL", "TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE"} <= wanted
    values = dict(line.split("=", 1) for line in told.splitlines())
    assert wanted <= set(values)
    assert values["REDIS_URL"] == "redis://x"
    assert (values["TEMPORAL_ADDRESS"], values["TEMPORAL_NAMESPACE"]) == ("127.0.0.1:6", "n")


def test_status_of_servers_alone_has_nothing_to_talk_to():
    """Neither variables nor a key."""
    status = report.status(servers_only("degraded"))
    assert "export" not in status
    assert "API key" not in status


def test_status_of_what_is_stopped_is_one_line():
    """It says how to start it."""
    assert report.status({**DOCUMENT, "state": "stopped"}) == "stopped (start it with: holdfast up)"
