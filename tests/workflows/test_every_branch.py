"""Every branch of an order's way, with the real workflow and the real activities, in the sandbox."""

import os
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.worker import Replayer

from app.contracts import temporal as t
from app.domain.commands import CancelOrder
from app.domain.errors import Refusal
from app.domain.payment import PaymentStatus
from app.infra.temporal.converter import DATA_CONVERTER
from app.workers import policies
from app.workers.workflows.order import OrderWorkflow
from tests.workflows.branches import BRANCHES
from tests.workflows.world import SANDBOX, World, connect

HISTORIES = Path(__file__).parents[1] / "replay" / "histories"


@pytest.fixture
async def client(temporal_address: str, temporal_namespace: str) -> Client:
    """A client of the shared Temporal."""
    return await connect(temporal_address, temporal_namespace)


@pytest.fixture(autouse=True)
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A carrier that says nothing is asked after a second, and a queue that nobody serves is noticed."""
    monkeypatch.setattr(policies, "QUICK", timedelta(seconds=1))
    monkeypatch.setattr(policies, "PATIENCE", timedelta(seconds=2))
    monkeypatch.setattr(policies, "TRACK_FIRST", timedelta(seconds=1))


@pytest.fixture
async def world(client: Client) -> AsyncIterator[World]:
    """A world whose workers run."""
    world = World(client)
    async with world.workers():
        yield world


@pytest.mark.parametrize("name", BRANCHES)
async def test_a_branch_ends_as_its_name_says_and_holds_nothing(world: World, name: str) -> None:
    """The order is final, nothing of it is held, and its history replays."""
    play, status = BRANCHES[name]
    order_id = await play(world)
    assert await world.ends(order_id) == status
    order = world.order(order_id)
    assert order.status == status
    assert not order.holds_anything or status == "completed"
    assert order.waiting_on is None
    stock = sum(world.orders.available.values())
    assert stock == 20 - sum(line.quantity for line in order.lines if status == "completed")
    handle = world.handle(order_id)
    described = await handle.describe()
    assert described.status is WorkflowExecutionStatus.COMPLETED
    history = await handle.fetch_history()
    replayer = Replayer(workflows=[OrderWorkflow], data_converter=DATA_CONVERTER, workflow_runner=SANDBOX)
    await replayer.replay_workflow(history)
    if os.environ.get("HOLDFAST_RECORD_HISTORIES"):
        # Stack traces name folders of the machine they were recorded on, and no replay reads them.
        text = re.sub(r'"stackTrace": ".*"', '"stackTrace": ""', history.to_json())
        (HISTORIES / f"{name}.json").write_text(text)


async def test_a_charge_is_asked_for_once_however_often_a_step_runs(world: World) -> None:
    """The stored intent is confirmed once and captured once."""
    play, _ = BRANCHES["completed_after_an_outage"]
    await world.ends(await play(world))
    assert world.payments.calls["create"] > 1, "the outage was seen"
    assert world.payments.calls["confirm"] == world.payments.calls["capture"] == 1


async def test_a_workflow_begun_anew_walks_over_what_is_done(world: World) -> None:
    """Temporal lost everything after the order was dispatched: nothing is done twice."""
    order_id = await world.start("tea")
    await world.until(lambda: world.order(order_id).payment.captured > 0)
    await world.handle(order_id).terminate()
    before = dict(world.payments.calls), dict(world.carrier.calls), list(world.orders.events[order_id])
    await world.client.start_workflow(
        t.ORDER_WORKFLOW,
        t.OrderInput(order_id, "customer", "correlation"),
        id=t.workflow_id(order_id),
        task_queue=t.QUEUE_ORDERS,
    )
    await world.deliver(order_id)
    assert await world.ends(order_id) == "completed"
    assert (world.payments.calls, world.carrier.calls) == before[:2]
    assert world.order(order_id).status == "completed"


@pytest.mark.parametrize("signal", [None, t.SIGNAL_CANCEL])
async def test_a_workflow_begun_anew_undoes_what_its_earlier_life_did(
    world: World, signal: str | None
) -> None:
    """Temporal lost everything while a paid and booked order was cancelled: nothing of it stays held."""
    world.carrier.is_down = True
    order_id = await world.start("tea")
    await world.until(lambda: world.order(order_id).payment.status is PaymentStatus.AUTHORIZED)
    await world.handle(order_id).terminate()
    assert not isinstance(await world.orders.record(order_id, CancelOrder()), Refusal)
    world.carrier.is_down = False
    await world.client.start_workflow(
        t.ORDER_WORKFLOW,
        t.OrderInput(order_id, "customer", "correlation"),
        id=t.workflow_id(order_id),
        task_queue=t.QUEUE_ORDERS,
        start_signal=signal,
    )
    assert await world.ends(order_id) == "cancelled"
    assert world.order(order_id).payment.status is PaymentStatus.VOIDED
    assert sum(world.orders.available.values()) == 20


async def test_an_order_whose_queue_nobody_serves_says_so(client: Client) -> None:
    """The shipping workers are stopped: the order waits for shipping, and goes on when they are back."""
    world = World(client)
    async with world.workers("orders", "inventory", "payments", "notifications"):
        order_id = await world.start("tea")
        await world.until(lambda: world.order(order_id).waiting_on == "shipping")
        answer = await world.handle(order_id).query(t.QUERY_STATUS, result_type=t.StatusAnswer)
        assert answer == t.StatusAnswer("accepted", "book_shipments", "shipping")
        async with world.workers("shipping"):
            await world.until(lambda: world.order(order_id).payment.captured > 0)
            await world.deliver(order_id)
            assert await world.ends(order_id) == "completed"


async def test_lists_of_workflows_show_where_orders_stand(world: World) -> None:
    """Search attributes carry ids and enums."""
    play, _ = BRANCHES["completed"]
    order_id = await play(world)
    await world.ends(order_id)
    described = await world.handle(order_id).describe()
    shown = {pair.key.name: pair.value for pair in described.typed_search_attributes}
    assert shown["OrderStatus"] == "completed"
    assert "WaitingOn" not in shown
