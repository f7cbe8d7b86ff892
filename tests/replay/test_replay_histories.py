"""A recorded history of a replay's workflow: today's workflow still walks the way of yesterday's replays.

Record it again: `HOLDFAST_RECORD_HISTORIES=1 pytest tests/integration/replay/test_workflow.py`.
"""

from pathlib import Path

from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from app.infra.temporal.converter import DATA_CONVERTER
from app.workers.workflows.replay import ReplayWorkflow
from tests.workflows.world import SANDBOX

HISTORY = Path(__file__).parent / "replays" / "applied_in_many_steps.json"


async def test_the_recorded_history_of_a_replay_replays() -> None:
    """Nothing that is under way is broken by a new release."""
    replayer = Replayer(workflows=[ReplayWorkflow], data_converter=DATA_CONVERTER, workflow_runner=SANDBOX)
    await replayer.replay_workflow(WorkflowHistory.from_json("replay/rpl_x", HISTORY.read_text()))
