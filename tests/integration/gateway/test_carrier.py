"""The carrier's webhooks: signatures, deliveries, and what is worth repeating."""

import asyncio
import time

import pytest

from app.dev.sandbox.webhooks import sign
from app.domain.commands import RecordDispatch
from tests.integration.gateway.lifecycle import confirm, dispatch, record
from tests.integration.gateway.served import SECRET, Gateway, problem

UNKNOWN = "ful_01hzy4x9w2v6q8r0t5s3n1m7k9_1"


def body_of(reference: str, kind: str = "shipment.delivered") -> bytes:
    """A report, with a field that this version does not know."""
    return (
        f'{{"type":"{kind}","reference":"{reference}","tracking_number":"T",'
        f'"occurred_at":"2026-01-31T12:00:00Z","new_field":1}}'
    ).encode()


async def report(gateway: Gateway, body: bytes, *, at: float = 0, secret: str = SECRET, **changes: str):
    """Send a report as the sandbox carrier does."""
    timestamp = int(time.time() + at)
    headers = {
        "content-type": "application/json",
        "webhook-id": "msg_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secret.encode(), "msg_1", timestamp, body),
        "authorization": "",
        **changes,
    }
    return await gateway.client.post("/v1/carrier-events", content=body, headers=headers)


async def test_a_delivery_is_recorded_and_the_workflow_told(gateway: Gateway):
    """Once, however often it is reported."""
    order = await gateway.place()
    dispatched = await dispatch(gateway, order["id"])
    fulfilment = dispatched.fulfilments[0].id
    await record(gateway, order["id"], RecordDispatch(fulfilment))
    answers = await asyncio.gather(*(report(gateway, body_of(fulfilment)) for _ in range(5)))
    assert [(a.status_code, a.json()["outcome"]) for a in answers] == [(200, "recorded")] * 5
    read = (await gateway.client.get(f"/v1/orders/{order['id']}")).json()
    assert read["fulfilments"][0]["status"] == "delivered"
    kinds = await gateway.database.fetch("SELECT type FROM events WHERE subject = $1", order["id"])
    assert [row["type"] for row in kinds].count("shipment.delivered.v1") == 1
    calls = await gateway.database.fetch("SELECT detail FROM workflow_outbox WHERE kind = 'delivered'")
    assert {row["detail"] for row in calls} == {fulfilment}


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": "another"},
        {"at": -400},
        {"at": 400},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,nonsense!"},
        {"webhook-signature": "v2,AAAA"},
        {"webhook-id": "msg_2"},
        {"webhook-id": ""},
        {"webhook-timestamp": "now"},
        {"webhook-timestamp": "9" * 40},
        {"webhook-timestamp": "-1"},
    ],
)
async def test_what_is_not_signed_right_and_lately_is_refused(shared_gateway: Gateway, wrong):
    """401 for everything that does not prove who sent it."""
    problem(await report(shared_gateway, body_of(UNKNOWN), **wrong), 401, "unauthenticated")


async def test_one_right_signature_among_several_is_enough(shared_gateway: Gateway):
    """Senders list two while they change their secret."""
    body = body_of(UNKNOWN)
    right = sign(SECRET.encode(), "msg_1", int(time.time()), body)
    answer = await report(shared_gateway, body, **{"webhook-signature": f"v1,AAAA v1a,x {right}"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        (UNKNOWN, "shipment.delivered"),
        ("nonsense", "shipment.delivered"),
        ("ful_*:'_1", "shipment.delivered"),
        (UNKNOWN, "shipment.picked_up"),
        (UNKNOWN, "shipment.something_new"),
    ],
)
async def test_what_repeating_cannot_change_is_not_asked_for_again(
    shared_gateway: Gateway, reference: str, kind: str
):
    """2xx, because the carrier repeats anything else for days; it says that nothing was done."""
    answer = await report(shared_gateway, body_of(reference, kind))
    assert (answer.status_code, answer.json()["outcome"]) == (200, "ignored")


async def test_a_delivery_before_our_own_release_is_asked_for_again(gateway: Gateway):
    """409 with Retry-After; once the release is on record, the repetition is taken."""
    order = await gateway.place()
    fulfilment = (await confirm(gateway, order["id"])).fulfilments[0].id
    early = await report(gateway, body_of(fulfilment))
    problem(early, 409, "not-now")
    assert early.headers["retry-after"] == "1"


async def test_a_delivery_of_a_cancelled_order_is_not_asked_for_again(gateway: Gateway):
    """Nothing leads from there to a delivery."""
    order = await gateway.place()
    fulfilment = (await confirm(gateway, order["id"])).fulfilments[0].id
    await gateway.post(f"/v1/orders/{order['id']}/cancel", {})
    answer = await report(gateway, body_of(fulfilment))
    assert (answer.status_code, answer.json()["outcome"]) == (200, "ignored")
    unknown = await report(gateway, body_of(fulfilment.replace("_1", "_9")))
    assert (unknown.status_code, unknown.json()["outcome"]) == (200, "ignored")


@pytest.mark.parametrize(
    ("body", "slug", "status"),
    [(b"{", "malformed-request", 400), (b"{}", "invalid-request", 422), (b"\xff", "malformed-request", 400)],
)
async def test_a_signed_report_that_cannot_be_read_is_refused(
    shared_gateway: Gateway, body: bytes, slug: str, status: int
):
    """A signature proves who wrote it, not that it makes sense."""
    problem(await report(shared_gateway, body), status, slug)
