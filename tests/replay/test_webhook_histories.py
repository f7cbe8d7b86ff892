"""Histories of webhook deliveries: today's workflow still walks the way of yesterday's.

A delivery is under way for days. After thinking about those, record them again:
`HOLDFAST_RECORD_HISTORIES=1 pytest tests/integration/webhooks/test_sending.py`.
"""

import base64
import re
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from app.infra.temporal.converter import DATA_CONVERTER
from app.workers.workflows.webhook import WebhookDeliveryWorkflow
from tests.workflows.world import SANDBOX

HISTORIES = Path(__file__).parent / "histories" / "webhooks"
NAMES = (
    "delivered",
    "delivered_after_failures",
    "given_up",
    "left_alone_for_a_while",
    "superseded",
    "waited_for_its_turn",
)
PAYLOAD = re.compile(r'"data": "([A-Za-z0-9+/=]+)"')


@pytest.mark.parametrize("name", NAMES)
async def test_a_recorded_delivery_replays(name: str) -> None:
    """Without a difference."""
    replayer = Replayer(
        workflows=[WebhookDeliveryWorkflow], data_converter=DATA_CONVERTER, workflow_runner=SANDBOX
    )
    text = (HISTORIES / f"{name}.json").read_text()
    await replayer.replay_workflow(WorkflowHistory.from_json(f"webhook/{name}", text))


def test_what_temporal_keeps_of_a_delivery_are_ids_states_and_numbers() -> None:
    """No URL, no secret, nothing of the event."""
    texts = [file.read_text() for file in HISTORIES.glob("*.json")]
    assert len(texts) == len(NAMES)
    payloads = [base64.b64decode(data).decode() for text in texts for data in PAYLOAD.findall(text)]
    assert any("msg_" in payload for payload in payloads), "payloads are found"
    assert not [payload for payload in payloads if re.search(r"://|whsec|127\.0|ord_", payload)]
