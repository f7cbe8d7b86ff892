"""Histories of every branch, checked in: today's workflow still walks the way of yesterday's orders.

A change that breaks one of them would break orders that are under way. After thinking about those orders,
record them again: `HOLDFAST_RECORD_HISTORIES=1 pytest tests/workflows`.
"""

import base64
import re
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from app.infra.temporal.converter import DATA_CONVERTER
from app.workers.workflows.order import OrderWorkflow
from tests.workflows.branches import BRANCHES
from tests.workflows.world import SANDBOX

PAYLOAD = re.compile(r'"data": "([A-Za-z0-9+/=]+)"')
HISTORIES = Path(__file__).parent / "histories"


@pytest.mark.parametrize("name", BRANCHES)
async def test_a_recorded_history_replays(name: str) -> None:
    """Every branch has its history, and it replays without a difference."""
    text = (HISTORIES / f"{name}.json").read_text()
    replayer = Replayer(workflows=[OrderWorkflow], data_converter=DATA_CONVERTER, workflow_runner=SANDBOX)
    await replayer.replay_workflow(WorkflowHistory.from_json(f"order/{name}", text))


def test_every_recorded_history_is_of_a_branch() -> None:
    """No history is forgotten here when a branch goes."""
    assert {f.stem for f in HISTORIES.glob("*.json")} == set(BRANCHES)


def test_no_recorded_history_carries_personal_data() -> None:
    """What Temporal keeps are ids, SKUs and amounts: no address has got there."""
    texts = [f.read_text() for f in HISTORIES.glob("*.json")]
    payloads = [base64.b64decode(data).decode() for text in texts for data in PAYLOAD.findall(text)]
    assert any("ord_" in payload for payload in payloads), "payloads are found"
    assert not [payload for payload in payloads if "Nowhere" in payload or "Nobody" in payload]
