"""Deliveries from the event to the receiver, through Temporal, whatever dies on the way."""

import asyncio
import json
import os
import re
from pathlib import Path

import msgspec
import pytest
from temporalio.client import Client
from temporalio.worker import Replayer

from app.contracts import temporal as t
from app.contracts.streams import Envelope
from app.infra.postgres.answers import Request
from app.infra.temporal.converter import DATA_CONVERTER
from app.workers.activities.webhooks import OF_ONE_ENDPOINT_MAX
from app.workers.workflows.webhook import WebhookDeliveryWorkflow
from tests.integration.webhooks.receiver import Got, Receiver, events_of, receiving, until
from tests.integration.webhooks.world import BREAKER_FAILURES, QUICK, World
from tests.workflows.world import SANDBOX

HISTORIES = Path(__file__).parents[2] / "replay" / "histories" / "webhooks"


async def replays(client: Client, delivery_id: str, name: str, round_: int = 1) -> str:
    """Wait for a delivery's workflow and replay its history, checked in as `name`; how it ended."""
    handle = client.get_workflow_handle(t.webhook_workflow_id(delivery_id, round_), result_type=str)
    async with asyncio.timeout(30):
        ended = await handle.result()
    history = await handle.fetch_history()
    replayer = Replayer(
        workflows=[WebhookDeliveryWorkflow], data_converter=DATA_CONVERTER, workflow_runner=SANDBOX
    )
    await replayer.replay_workflow(history)
    if os.environ.get("HOLDFAST_RECORD_HISTORIES"):
        text = re.sub(r'"stackTrace": ".*"', '"stackTrace": ""', history.to_json())
        (HISTORIES / f"{name}.json").write_text(text)
    return ended


async def until_states(world: World, *states: str) -> None:
    """Wait until the deliveries are these, whatever their order."""

    async def are() -> bool:
        return sorted(await world.states()) == sorted(states)

    await until(are, f"not {states}")


async def test_an_order_arrives_as_its_events_signed(world: World, receiver: Receiver, client: Client):
    """Each once, with an id of its own, and the official verifier takes every one."""
    _, secret = await world.endpoint(receiver.url)
    order = await world.orders.complete(await world.orders.accept())
    events = await world.happen(order.id)
    async with world.working(client):
        await receiver.until(len(events))
        await until_states(world, *["delivered"] * len(events))
        assert await replays(client, receiver.got[0].id, "delivered") == "delivered"
    assert sorted(events_of(receiver)) == sorted(event.id for event in events)
    assert {got.id for got in receiver.got} == {row["id"] for row in await world.rows()}
    for got in receiver.got:
        assert got.verified(secret)["subject"] == order.id


async def test_a_receiver_that_was_down_gets_everything_when_it_is_up(
    world: World, receiver: Receiver, client: Client
):
    """Under the same ids, by the schedule; one workflow carries a delivery through its short waits."""
    world.breaker_failures = 100
    await world.endpoint(receiver.url)
    await receiver.down()
    await world.happen((await world.orders.accept()).id)
    world.waits_s = QUICK
    async with world.working(client):

        async def tried() -> bool:
            return (await world.rows())[0]["attempts"] >= 2

        await until(tried, "nothing was tried")
        await receiver.up()
        await until_states(world, "delivered")
        (row,) = await world.rows()
        assert await replays(client, row["id"], "delivered_after_failures") == "delivered"
    assert [got.id for got in receiver.got] == [row["id"]]
    assert row["attempts"] >= 3


async def test_what_is_refused_for_too_long_is_given_up_and_can_be_sent_again(
    world: World, receiver: Receiver, client: Client
):
    """It has failed, stays in the log, and comes under its own id when somebody says so."""
    name, secret = await world.endpoint(receiver.url)
    receiver.status = 500
    await world.happen((await world.orders.accept()).id)
    world.waits_s = (0.01,)
    async with world.working(client):
        await until_states(world, "failed")
        (row,) = await world.rows()
        assert (row["attempts"], row["last_status"]) == (2, 500)
        assert await replays(client, row["id"], "given_up") == "failed"
        receiver.status = 200
        request = Request("test", "redeliver", "key", b"")
        await world.deliveries.again(request, name, row["id"], lambda _: b"{}")
        await until_states(world, "delivered")
    assert [got.id for got in receiver.got] == [row["id"]] * 3
    assert receiver.got[2].verified(secret)["id"] == json.loads(receiver.got[0].body)["id"]


@pytest.mark.full
async def test_a_delivery_that_is_sent_again_while_it_waits_comes_once(
    world: World, receiver: Receiver, client: Client
):
    """The round that slept finds, when it wakes, that another has the delivery."""
    name, _ = await world.endpoint(receiver.url)
    receiver.status = 500
    await world.happen((await world.orders.accept()).id)
    world.waits_s = (1.5, 60.0)
    async with world.working(client):
        await receiver.until(1)
        (row,) = await world.rows()
        receiver.status = 200
        request = Request("test", "redeliver", "key", b"")
        await world.deliveries.again(request, name, row["id"], lambda _: b"{}")
        await until_states(world, "delivered")
        assert await replays(client, row["id"], "superseded") == "superseded"
    assert [got.id for got in receiver.got] == [row["id"]] * 2


async def test_a_test_arrives_like_an_event(world: World, receiver: Receiver, client: Client):
    """Signed, in the envelope of an event, whatever types the endpoint takes; each one anew."""
    name, secret = await world.endpoint(receiver.url, "price.changed.v1")
    request = Request("test", "test", "key", b"")
    for _ in range(2):
        await world.deliveries.test(request, name, "msg_test", lambda _: b"{}")
    async with world.working(client):
        await until_states(world, "delivered")
    (got,) = receiver.got
    sent = got.verified(secret)
    assert got.id == sent["correlationid"] == "msg_test"
    assert (sent["type"], sent["subject"], sent["data"]) == ("webhook.test.v1", name, {})
    assert msgspec.json.decode(got.body, type=Envelope)


@pytest.mark.full
async def test_retry_after_puts_the_next_attempt_off(world: World, receiver: Receiver, client: Client):
    """The receiver says when."""
    await world.endpoint(receiver.url)
    receiver.status, receiver.headers = 503, {"retry-after": "120"}
    await world.happen((await world.orders.accept()).id)
    world.waits_s = QUICK
    async with world.working(client):
        await receiver.until(1)

        async def noted() -> bool:
            return (await world.rows())[0]["attempts"] == 1

        await until(noted)
    (row,) = await world.rows()
    assert 100 < (row["next_at"] - row["last_at"]).total_seconds() < 130


@pytest.mark.full
async def test_an_endpoint_that_is_deleted_meanwhile_gets_nothing_more(
    world: World, receiver: Receiver, client: Client
):
    """What was to be tried again is not."""
    name, _ = await world.endpoint(receiver.url)
    receiver.status = 500
    await world.happen((await world.orders.accept()).id)
    world.waits_s = (0.3, 60.0)
    async with world.working(client):
        await receiver.until(1)
        assert await world.endpoints.delete(name, None)
        await until_states(world, "failed")
    assert len(receiver.got) == 1


async def test_a_receiver_that_comes_back_is_not_overrun(world: World, receiver: Receiver, client: Client):
    """While it is down few attempts are made; then everything comes, in a line."""
    world.breaker_first_s = 0.3
    await world.endpoint(receiver.url)
    await receiver.down()
    ids = [(await world.orders.accept()).id for _ in range(25)]
    await world.happen(*ids)
    world.waits_s = (0.2,) * 30
    async with world.working(client):

        async def opened() -> bool:
            return bool(await world.endpoints.left_alone())

        await until(opened, "the endpoint is not left alone")
        receiver.answer = lambda _: (200, {})
        await receiver.up()
        await until_states(world, *["delivered"] * 25)
        rows = await world.rows()
        patient = [row["id"] for row in rows if row["round"] > 1]
        assert patient, "nobody waited"
        assert await replays(client, patient[0], "waited_for_its_turn") == "waiting"
    attempts = sum(row["attempts"] for row in rows)
    assert attempts <= 25 + 25 + BREAKER_FAILURES + 5, "deliveries waited instead of trying"
    assert receiver.at_once_most <= OF_ONE_ENDPOINT_MAX


@pytest.mark.full
async def test_a_slow_receiver_has_only_so_many_attempts_for_itself(
    world: World, receiver: Receiver, client: Client
):
    """Others are served meanwhile."""
    await world.endpoint(receiver.url)
    receiver.may_answer.clear()
    await world.happen(*[(await world.orders.accept()).id for _ in range(OF_ONE_ENDPOINT_MAX + 6)])
    async with world.working(client), receiving() as quick:
        await receiver.until(OF_ONE_ENDPOINT_MAX)
        await world.endpoint(quick.url)
        await world.happen((await world.orders.accept()).id)
        await quick.until(1)
        assert receiver.at_once_most == OF_ONE_ENDPOINT_MAX
        receiver.may_answer.set()
        await until_states(world, *["delivered"] * (OF_ONE_ENDPOINT_MAX + 8))


async def test_a_worker_that_dies_in_the_middle_is_replaced(
    world: World, receiver: Receiver, client: Client, monkeypatch: pytest.MonkeyPatch
):
    """What it had sent and not put on record comes again, under the same id."""
    await world.endpoint(receiver.url)
    await world.happen((await world.orders.accept()).id)
    sent = asyncio.Event()

    def answer(_: Got) -> tuple[int, dict[str, str]]:
        sent.set()
        return 200, {}

    receiver.answer = answer
    real, failures = world.deliveries.end, iter([ConnectionResetError("the process is dead")])

    async def end(*arguments, **named):
        error = next(failures, None)
        if error is not None:
            raise error
        return await real(*arguments, **named)

    monkeypatch.setattr(world.deliveries, "end", end)
    async with world.working(client):
        await sent.wait()
        await until_states(world, "delivered")
    (row,) = await world.rows()
    assert [got.id for got in receiver.got] == [row["id"]] * 2
