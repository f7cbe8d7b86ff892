"""The carrier: parcels, their life, and the webhooks that tell of it."""

import asyncio
import base64
import hashlib
import hmac
import time

import httpx
import msgspec
import pytest

from app.dev.sandbox.http import Cut, Response
from tests.integration.sandbox.process import SECRET

BOOKING = {
    "warehouse": "east",
    "lines": [{"sku": "tea", "quantity": 2}, {"sku": "cup", "quantity": 1}],
    "address": None,
    "correlation_id": "c-1",
}
HOUR_MS = 3_600_000


async def booked_and_released(sandbox, *references: str) -> None:
    """Book them all, then release them all."""
    async with httpx.AsyncClient(base_url=sandbox.url) as http:
        for reference in references:
            assert (await http.put(f"/v1/shipments/{reference}", json=BOOKING)).status_code == 201
        for reference in references:
            assert (await http.post(f"/v1/shipments/{reference}/release")).json()["status"] == "released"


async def test_a_parcel_is_booked_once_per_reference(http):
    """The same booking again is the same shipment; another content under its reference is refused."""
    first = await http.put("/v1/shipments/ful_1", json=BOOKING)
    assert first.status_code == 201
    shipment = first.json()
    assert (shipment["reference"], shipment["status"]) == ("ful_1", "booked")
    assert shipment["id"].startswith("shp_")
    again = {**BOOKING, "lines": BOOKING["lines"][::-1], "correlation_id": "another"}
    second = await http.put("/v1/shipments/ful_1", json=again)
    assert (second.status_code, second.json()) == (200, shipment)
    other = await http.put("/v1/shipments/ful_1", json={**BOOKING, "warehouse": "west"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "booked_otherwise")
    assert (await http.get("/v1/shipments/ful_1")).json() == shipment


async def test_cancel_and_release_exclude_each_other(http):
    """Each is idempotent; whichever came first decides."""
    for reference in ("ful_a", "ful_b"):
        await http.put(f"/v1/shipments/{reference}", json=BOOKING)
    for _ in range(2):
        assert (await http.post("/v1/shipments/ful_a/cancel")).json()["status"] == "cancelled"
    for call in (http.post("/v1/shipments/ful_a/release"), http.put("/v1/shipments/ful_a", json=BOOKING)):
        answer = await call
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "cancelled")
    for _ in range(2):
        assert (await http.post("/v1/shipments/ful_b/release")).status_code == 200
    answer = await http.post("/v1/shipments/ful_b/cancel")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "already_released")


@pytest.mark.parametrize(
    ("booking", "status", "code"),
    [
        ({**BOOKING, "address": {"country": "XX"}}, 422, "undeliverable_address"),
        ({**BOOKING, "lines": []}, 400, "invalid_booking"),
        ({**BOOKING, "lines": [{"sku": "a", "quantity": 0}]}, 400, "invalid_booking"),
        ({"lines": BOOKING["lines"]}, 400, "invalid_booking"),
    ],
)
async def test_what_the_carrier_will_not_take(http, booking, status, code):
    """4xx with a code; nothing is booked."""
    answer = await http.put("/v1/shipments/ful_none", json=booking)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert (await http.get("/v1/shipments/ful_none")).status_code == 404
    for verb in ("release", "cancel"):
        assert (await http.post(f"/v1/shipments/ful_none/{verb}")).status_code == 404


async def test_pick_up_and_delivery_are_reported_signed_and_in_order(start, receiver):
    """Soon after the release, as Standard Webhooks say."""
    sandbox = await start(receiver.url)
    await booked_and_released(sandbox, "ful_1")
    await receiver.until(lambda: len(receiver.received) == 2)
    assert receiver.taken("ful_1") == ["shipment.picked_up", "shipment.delivered"]
    for one in receiver.received:
        identity, timestamp = one.headers["webhook-id"], one.headers["webhook-timestamp"]
        assert abs(int(timestamp) - time.time()) < 60
        signed = f"{identity}.{timestamp}.".encode() + one.body
        digest = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
        assert one.headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
        body = msgspec.json.decode(one.body)
        assert set(body) == {"type", "reference", "tracking_number", "occurred_at"}
    async with httpx.AsyncClient(base_url=sandbox.url) as http:
        assert (await http.get("/v1/shipments/ful_1")).json()["status"] == "delivered"
    assert (await sandbox.state())["webhooks_waiting"] == 0


async def test_a_report_is_repeated_until_it_is_taken_and_the_next_one_waits_for_it(start, receiver):
    """500, 401, a cut connection, then 204: one id for all; delivery is told after pick-up is taken."""
    sandbox = await start(receiver.url)
    answers = [Response(500, b"{}"), Response(401, b"{}"), Cut.RESET, Response(204, b"")]

    def answer(reference, kind):
        picked_up = kind == "shipment.picked_up" and reference == "ful_1"
        return answers.pop(0) if picked_up else Response(204, b"")

    receiver.answer = answer
    await booked_and_released(sandbox, "ful_1", "ful_2")
    await receiver.until(lambda: "shipment.delivered" in receiver.taken("ful_1"))
    ours = [one for one in receiver.received if one.reference == "ful_1"]
    assert [one.status for one in ours] == [500, 401, 0, 204, 204]
    assert len({one.headers["webhook-id"] for one in ours[:4]}) == 1
    assert receiver.taken("ful_1") == ["shipment.picked_up", "shipment.delivered"]
    assert receiver.taken("ful_2") == ["shipment.picked_up", "shipment.delivered"]


async def test_reports_wait_for_a_receiver_that_is_down_even_through_kill_9(start, receiver):
    """Durable until answered: the receiver and the sandbox both go and come back."""
    sandbox = await start(receiver.url)
    await receiver.close()
    references = [f"ful_{number}" for number in range(40)]
    await booked_and_released(sandbox, *references)
    await sandbox.kill()
    await sandbox.start()
    while (await sandbox.state())["shipments"] != {"delivered": 40}:
        await asyncio.sleep(0.02)
    assert (await sandbox.state())["webhooks_waiting"] == 80
    await sandbox.kill()
    await sandbox.start()
    await receiver.open()
    await receiver.until(lambda: len(receiver.received) >= 80)
    for reference in references:
        assert list(dict.fromkeys(receiver.taken(reference))) == ["shipment.picked_up", "shipment.delivered"]
    while (await sandbox.state())["webhooks_waiting"]:
        await asyncio.sleep(0.02)


async def test_no_more_than_eight_reports_are_on_their_way(start, receiver):
    """Bounded: a slow receiver is not flooded."""
    sandbox = await start(receiver.url)
    receiver.answer = lambda _reference, _kind: Cut.SILENCE
    await booked_and_released(sandbox, *(f"ful_{number}" for number in range(30)))
    await receiver.until(lambda: len(receiver.received) == 8)
    while (await sandbox.state())["shipments"] != {"delivered": 30}:
        await asyncio.sleep(0.02)
    assert len(receiver.received) == 8


async def test_delays_can_be_hours(sandbox, http):
    """Then nothing moves by itself, and the carrier can be asked at any time."""
    await sandbox.delays(pickup_ms=HOUR_MS, delivery_ms=HOUR_MS)
    await booked_and_released(sandbox, "ful_1")
    await sandbox.delays(pickup_ms=0, delivery_ms=0)
    await booked_and_released(sandbox, "ful_2")
    while (await http.get("/v1/shipments/ful_2")).json()["status"] != "delivered":
        await asyncio.sleep(0.01)
    assert (await http.get("/v1/shipments/ful_1")).json()["status"] == "released"
