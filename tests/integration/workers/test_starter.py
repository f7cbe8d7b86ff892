"""The starter: what the workflow outbox holds reaches Temporal, once, whatever dies."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from temporalio.client import Client, WorkflowExecutionStatus

from app.contracts import temporal as t
from app.dev.servers import EmbeddedTemporal
from app.infra.postgres.intake import Intake, Request
from app.infra.postgres.pool import Database
from app.infra.postgres.workflow_outbox import WorkflowOutbox
from app.infra.temporal.client import connect
from app.workers.starter import Starter
from app.workers.telling import BATCH_MAX
from tests.integration.workers.accepted import accept
from tests.integration.workers.poll import Poll

WAIT_S = 20.0


@pytest.fixture
def starter(database: Database, client: Client) -> Starter:
    """A starter that only polls."""
    return Starter(WorkflowOutbox(database), client, Poll())


async def _connect(address: str) -> Client:
    return await connect(address, "holdfast-dev", tls_cert=None, tls_key=None, api_key=None)


async def _rows(database: Database) -> int:
    rows = await database.fetch("SELECT count(*) AS n FROM workflow_outbox")
    return int(rows[0]["n"])


async def _signals(client: Client, order_id: str) -> list[str]:
    history = await client.get_workflow_handle(t.workflow_id(order_id)).fetch_history()
    return [
        event.workflow_execution_signaled_event_attributes.signal_name
        for event in history.events
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]


async def test_an_accepted_order_is_started_and_its_row_is_gone(
    database: Database, client: Client, starter: Starter
) -> None:
    """The workflow runs under the order's id, with the ids that lists show."""
    order = await accept(database)
    assert await starter.tell() == 1
    assert await _rows(database) == 0
    described = await client.get_workflow_handle(t.workflow_id(order.id)).describe()
    assert described.status is WorkflowExecutionStatus.RUNNING
    shown = {pair.key.name: pair.value for pair in described.typed_search_attributes}
    assert shown["OrderId"] == order.id
    assert shown["CustomerId"] == "customer"
    assert shown["CorrelationId"] == "correlation"


async def test_what_one_starter_has_claimed_another_leaves_alone_until_the_claim_runs_out(
    database: Database, starter: Starter
) -> None:
    """A starter that died while it told Temporal is replaced."""
    await accept(database)
    outbox = WorkflowOutbox(database)
    assert len(await outbox.claim(10, 0.3)) == 1
    assert await outbox.claim(10, 0.3) == []
    async with asyncio.timeout(WAIT_S):
        while await starter.tell() == 0:
            await asyncio.sleep(0.05)
    assert await _rows(database) == 0


async def test_two_starters_share_the_work(database: Database, client: Client) -> None:
    """Every order is told once between them."""
    orders = [await accept(database) for _ in range(20)]
    outbox = WorkflowOutbox(database)
    claims = await asyncio.gather(*(outbox.claim(7, 15.0) for _ in range(4)))
    claimed = [call.order_id for claim in claims for call in claim]
    assert len(claimed) == len(set(claimed))
    assert set(claimed) <= {order.id for order in orders}


async def test_a_cancellation_that_overtakes_the_start_starts_the_workflow(
    database: Database, client: Client, starter: Starter
) -> None:
    """There is no "not started yet": the signal starts it, and the start that comes later is refused."""
    order = await accept(database)
    held = await WorkflowOutbox(database).claim(10, 0.5)
    assert [call.kind for call in held] == ["start"]
    request = Request("caller", f"POST /v1/orders/{order.id}/cancel", "key", b"hash")
    await Intake(database).cancel(request, order.id, None, lambda _: b"{}")
    assert await starter.tell() == 1
    assert await _signals(client, order.id) == [t.SIGNAL_CANCEL]
    async with asyncio.timeout(WAIT_S):
        while await _rows(database):
            await starter.tell()
            await asyncio.sleep(0.05)
    assert await _signals(client, order.id) == [t.SIGNAL_CANCEL]


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_call_to_a_workflow_that_has_ended_begins_it_anew_while_its_order_is_open(
    database: Database, client: Client, starter: Starter, is_open: bool
) -> None:
    """Somebody ended it by hand: an open order is carried on, a final one is left alone."""
    order = await accept(database)
    await starter.tell()
    handle = client.get_workflow_handle(t.workflow_id(order.id))
    await handle.terminate()
    if not is_open:
        await database.execute("UPDATE orders SET status = 'completed'")
    await database.execute(
        "INSERT INTO workflow_outbox (order_id, kind, detail) VALUES ($1, 'delivered', 'ful_x')", order.id
    )
    assert await starter.tell() == 1
    assert await _rows(database) == 0
    ended = WorkflowExecutionStatus.RUNNING if is_open else WorkflowExecutionStatus.TERMINATED
    assert (await handle.describe()).status is ended


async def test_an_open_order_that_nobody_carries_is_started_again(
    database: Database, client: Client, starter: Starter
) -> None:
    """Its workflow was terminated, or Temporal lost it: the check finds the order in PostgreSQL."""
    order = await accept(database)
    await starter.tell()
    handle = client.get_workflow_handle(t.workflow_id(order.id))
    await handle.terminate()
    await database.execute(
        "UPDATE orders SET checked_at = now() - interval '1 hour', updated_at = now() - interval '1 hour'"
    )
    idle = await WorkflowOutbox(database).idle_orders(300, 10)
    assert [found.order_id for found in idle] == [order.id]
    assert await WorkflowOutbox(database).idle_orders(300, 10) == [], "looked at once, not again at once"
    await starter.revive(idle[0])
    assert (await client.get_workflow_handle(t.workflow_id(order.id)).describe()).status is (
        WorkflowExecutionStatus.RUNNING
    )


async def test_orders_wait_while_temporal_is_away_and_are_started_when_it_is_back(
    database: Database, tmp_path: Path
) -> None:
    """A Temporal of the test's own is killed and started again."""
    server = EmbeddedTemporal(tmp_path / "temporal")
    await server.start()
    starter = Starter(WorkflowOutbox(database), client := await _connect(server.address), Poll())
    running = asyncio.create_task(starter.run())
    try:
        await server.kill()
        order = await accept(database)
        async with asyncio.timeout(WAIT_S):
            while not (
                await database.fetch("SELECT 1 FROM workflow_outbox WHERE claimed_until > '-infinity'")
            ):
                await asyncio.sleep(0.05)
        assert await _rows(database) == 1
        await server.start()
        async with asyncio.timeout(WAIT_S):
            while await _rows(database):
                await asyncio.sleep(0.05)
        described = await client.get_workflow_handle(t.workflow_id(order.id)).describe()
        assert described.status is WorkflowExecutionStatus.RUNNING
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop()


REFUSE = "UPDATE orders SET correlation_id = repeat('x', 5000)"
"""An attribute that is longer than Temporal takes."""


async def test_one_that_temporal_refuses_holds_up_nobody_and_is_named(
    database: Database, client: Client, starter: Starter
) -> None:
    """It is tried again, and goes on when it is mended."""
    refused = await accept(database)
    await database.execute(REFUSE)
    taken = await accept(database)
    with capture_logs() as said:
        assert await starter.tell() == 2
    described = await client.get_workflow_handle(t.workflow_id(taken.id)).describe()
    assert described.status is WorkflowExecutionStatus.RUNNING
    rows = await database.fetch("SELECT id, order_id, claimed_until > now() AS waits FROM workflow_outbox")
    assert [(row["order_id"], row["waits"]) for row in rows] == [(refused.id, True)]
    (line,) = [line for line in said if line["event"] == "workflow_not_told"]
    assert (line["what"], line["row"]) == ("orders", rows[0]["id"])
    await database.execute("UPDATE orders SET correlation_id = 'mended' WHERE id = $1", refused.id)
    await database.execute("UPDATE workflow_outbox SET claimed_until = '-infinity'")
    assert await starter.tell() == 1
    assert await _rows(database) == 0


async def test_a_whole_batch_that_temporal_refuses_holds_up_nobody(
    database: Database, client: Client, starter: Starter
) -> None:
    """Whoever comes behind it is claimed next; nobody says that Temporal is away."""
    for _ in range(BATCH_MAX):
        await accept(database)
    await database.execute(REFUSE)
    taken = await accept(database)
    assert await starter.tell() == BATCH_MAX
    assert await starter.tell() == 1
    described = await client.get_workflow_handle(t.workflow_id(taken.id)).describe()
    assert described.status is WorkflowExecutionStatus.RUNNING
    assert await _rows(database) == BATCH_MAX
