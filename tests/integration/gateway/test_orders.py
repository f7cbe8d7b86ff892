"""Placing, reading, listing and cancelling orders over HTTP, with what PostgreSQL holds afterwards."""

import asyncio
import hashlib
import json
import re

import pytest
import redis.asyncio

from app.contracts.streams import order_document
from app.domain.commands import RecordReservation, ReleaseOrder
from app.domain.decide import decide
from tests.integration.gateway.lifecycle import confirm, dispatch
from tests.integration.gateway.served import Gateway, problem

ORDER_ID = re.compile(r"ord_[0-9a-hjkmnp-tv-z]{26}\Z")


async def test_an_order_is_accepted_with_everything_it_needs_to_go_on(gateway: Gateway):
    """One transaction: the order, its first event, both outboxes, and the answer to the key."""
    wanted = gateway.order(
        shipping_address={"name": "Ada", "line1": "1 St", "city": "L", "postal_code": "1", "country": "GB"},
        metadata={"cart": "c-77"},
        expected_total={"amount": 2934, "currency": "USD"},
    )
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = await gateway.post("/v1/orders", wanted, idempotency="first", headers={"traceparent": trace})
    assert answer.status_code == 202
    order = answer.json()
    assert ORDER_ID.match(order["id"])
    assert answer.headers["location"] == f"/v1/orders/{order['id']}"
    assert "idempotent-replayed" not in answer.headers
    assert order["status"] == "accepted"
    assert order["version"] == 1
    assert order["waiting_on"] is None
    assert order["lines"] == [
        {
            "sku": "tea-earl-grey",
            "quantity": 2,
            "unit_price": {"amount": 1467, "currency": "USD"},
            "amount": {"amount": 2934, "currency": "USD"},
        }
    ]
    assert order["totals"]["total"] == {"amount": 2934, "currency": "USD"}
    assert order["totals"]["tax"] == order["totals"]["shipping"] == {"amount": 0, "currency": "USD"}
    assert order["metadata"] == {"cart": "c-77"}
    assert order["correlation_id"] == "4bf92f3577b34da6a3ce929d0e0e4736" == answer.headers["x-correlation-id"]
    assert order["created_at"].endswith("Z")
    row = await gateway.database.fetchrow("SELECT * FROM orders WHERE id = $1", order["id"])
    assert json.loads(row["shipping_address"])["city"] == "L"
    assert row["traceparent"] == trace
    assert row["payment_method"] == "pm_card_visa"
    for table, column in (
        ("events", "subject"),
        ("event_outbox", "subject"),
        ("workflow_outbox", "order_id"),
    ):
        count = await gateway.database.fetchval(
            f"SELECT count(*) FROM {table} WHERE {column} = $1", order["id"]
        )
        assert count == 1, table
    stored = await gateway.database.fetchrow("SELECT * FROM idempotency WHERE key = 'first'")
    assert stored["answer"] == answer.content
    assert stored["body_hash"] == hashlib.sha256(answer.request.content).digest()


async def test_the_same_key_gives_the_same_bytes_again(gateway: Gateway):
    """Byte for byte, with Location, marked as replayed; nothing is done twice."""
    wanted = gateway.order()
    first = await gateway.post("/v1/orders", wanted, idempotency="again")
    second = await gateway.post("/v1/orders", wanted, idempotency="again", headers={"Prefer": "wait=1"})
    assert (second.status_code, second.content) == (202, first.content)
    assert second.headers["location"] == first.headers["location"]
    assert second.headers["idempotent-replayed"] == "true"
    assert await gateway.database.fetchval("SELECT count(*) FROM orders") == 1


async def test_the_same_key_with_another_body_is_refused(gateway: Gateway):
    """A key belongs to one request; the first answer stays."""
    await gateway.post("/v1/orders", gateway.order(), idempotency="one")
    other = await gateway.post("/v1/orders", gateway.order(customer_id="cust-2"), idempotency="one")
    problem(other, 422, "idempotency-key-reused")
    unknown = gateway.order(lines=[{"sku": "nobody-has-this", "quantity": 1}])
    problem(await gateway.post("/v1/orders", unknown, idempotency="one"), 422, "idempotency-key-reused")


async def test_a_key_sent_a_hundred_times_at_once_makes_one_order(gateway: Gateway):
    """All answers are equal, whoever came first."""
    wanted = gateway.order()
    answers = await asyncio.gather(
        *(gateway.post("/v1/orders", wanted, idempotency="rush") for _ in range(100))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert await gateway.database.fetchval("SELECT count(*) FROM orders") == 1
    assert await gateway.database.fetchval("SELECT count(*) FROM event_outbox WHERE subject LIKE 'ord%'") == 1


async def test_another_caller_or_route_may_use_the_same_key(gateway: Gateway):
    """A key's scope is the caller and the route."""
    wanted = gateway.order()
    first = await gateway.post("/v1/orders", wanted, idempotency="mine")
    other = await gateway.post("/v1/orders", wanted, idempotency="mine", headers=await gateway.key())
    assert (other.status_code, other.content != first.content) == (202, True)
    path = first.headers["location"] + "/cancel"
    assert (await gateway.post(path, {}, idempotency="mine")).status_code == 200
    assert await gateway.database.fetchval("SELECT count(*) FROM orders") == 2


async def test_a_replay_wins_over_a_world_that_has_changed(gateway: Gateway):
    """A repeated request is not judged again: not by the price, not by the stock."""
    wanted = gateway.order(expected_total={"amount": 2934, "currency": "USD"})
    first = await gateway.post("/v1/orders", wanted, idempotency="before")
    price = {"name": "Earl Grey", "price": {"amount": 1500, "currency": "USD"}}
    assert (await gateway.client.put("/v1/products/tea-earl-grey", json=price)).status_code == 200
    await gateway.database.execute("UPDATE stock SET on_hand = 0 WHERE sku = 'tea-earl-grey'")
    again = await gateway.post("/v1/orders", wanted, idempotency="before")
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["idempotent-replayed"] == "true"


async def test_a_price_that_moved_is_refused_and_the_key_stays_free(gateway: Gateway):
    """409, nothing stored; the same key may be used for the new total."""
    expected = {"amount": 2933, "currency": "USD"}
    wanted = gateway.order(expected_total=expected)
    problem(
        await gateway.post("/v1/orders", wanted, idempotency="k"), 409, "price-changed", "/expected_total"
    )
    expected["amount"] = 2934
    assert (await gateway.post("/v1/orders", wanted, idempotency="k")).status_code == 202


async def test_what_is_known_to_be_sold_out_is_refused(gateway: Gateway):
    """409 naming the line, and nothing stored."""
    await gateway.client.put(
        "/v1/products/rare", json={"name": "Rare", "price": {"amount": 5, "currency": "USD"}}
    )
    wanted = gateway.order(lines=[{"sku": "tea-sencha", "quantity": 1}, {"sku": "rare", "quantity": 1}])
    problem(await gateway.post("/v1/orders", wanted, idempotency="k"), 409, "sold-out", "/lines/1/sku")
    assert await gateway.database.fetchval("SELECT count(*) FROM orders") == 0


async def test_an_order_that_costs_nothing_needs_no_payment(gateway: Gateway):
    """Zero is an amount like another."""
    order = await gateway.place(lines=[{"sku": "tea-sample", "quantity": 1}], payment_method=...)
    assert order["totals"]["total"]["amount"] == 0
    assert order["payment"]["status"] == "not_required"


async def test_an_order_may_hold_a_thousand_lines(gateway: Gateway):
    """The largest order there is."""
    order = await gateway.place(lines=[{"sku": "tea-sample", "quantity": 1}] * 1000, payment_method=...)
    assert len(order["lines"]) == 1000


async def test_an_order_is_read_with_a_tag_that_saves_reading_it_again(gateway: Gateway):
    """ETag and 304; a change gives another tag."""
    order = await gateway.place()
    path = f"/v1/orders/{order['id']}"
    answer = await gateway.client.get(path)
    assert (answer.status_code, answer.json()) == (200, order)
    tag = answer.headers["etag"]
    for given in (tag, f'W/{tag}, "x"', "*"):
        again = await gateway.client.get(path, headers={"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    await gateway.post(path + "/cancel", {})
    changed = await gateway.client.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


async def test_an_order_that_waits_has_a_tag_of_its_own(gateway: Gateway):
    """What an order waits for is part of its document, so it is part of the tag."""
    order = await gateway.place()
    before = (await gateway.client.get(f"/v1/orders/{order['id']}")).headers["etag"]
    await gateway.database.execute("UPDATE orders SET waiting_on = 'payments', updated_at = now()")
    await gateway.services.cached.show(await gateway.services.orders.load(order["id"]))
    answer = await gateway.client.get(f"/v1/orders/{order['id']}")
    assert answer.json()["waiting_on"] == "payments"
    assert answer.headers["etag"] != before


async def test_the_history_of_an_order_is_read_in_pages(gateway: Gateway):
    """CloudEvents in order, the first of them `order.accepted.v1`."""
    order = await gateway.place()
    await gateway.post(f"/v1/orders/{order['id']}/cancel", {})
    path = f"/v1/orders/{order['id']}/events"
    page = (await gateway.client.get(path, params={"limit": 1})).json()
    (first,) = page["items"]
    assert first["id"] == f"{order['id']}:1"
    assert first["type"] == "order.accepted.v1"
    assert first["specversion"] == "1.0"
    unit, whole = ({"amount": amount, "currency": "USD"} for amount in (1467, 2934))
    (line,) = first["data"]["lines"]
    assert (line["unit_price"], line["amount"], first["data"]["total"]) == (unit, whole, whole)
    assert first["correlationid"] == order["correlation_id"]
    rest = (await gateway.client.get(path, params={"cursor": page["next_cursor"]})).json()
    assert [event["type"] for event in rest["items"]] == ["order.cancelling.v1"]
    assert rest["next_cursor"] is None


async def test_who_takes_json_too_gets_json(gateway: Gateway):
    """A stream is for who wants nothing else."""
    order = await gateway.place()
    path = f"/v1/orders/{order['id']}/events"
    for accept in ("text/event-stream, application/json;q=0.5", "text/event-stream, */*", "*/*"):
        both = await gateway.client.get(path, headers={"Accept": accept})
        assert both.headers["content-type"] == "application/json"


async def test_lists_are_newest_first_and_filtered(gateway: Gateway):
    """Every filter, alone and together, and pages that neither skip nor repeat."""
    mine = [(await gateway.place(customer_id="cust-a"))["id"] for _ in range(5)]
    other = await gateway.place(customer_id="cust-b")
    await gateway.post(f"/v1/orders/{mine[0]}/cancel", {})

    async def ids(**query):
        return [o["id"] for o in (await gateway.client.get("/v1/orders", params=query)).json()["items"]]

    assert await ids() == [other["id"], *reversed(mine)]
    assert await ids(customer_id="cust-a") == list(reversed(mine))
    assert await ids(status="cancelling") == [mine[0]]
    assert await ids(customer_id="cust-b", status="cancelling") == []
    assert await ids(customer_id="cust-a", status="accepted") == list(reversed(mine[1:]))
    assert await ids(created_after=other["created_at"]) == []
    assert await ids(created_before=other["created_at"]) == list(reversed(mine))
    assert await ids(created_after="1900-01-01T00:00:00Z", created_before="9999-01-01T00:00:00Z") != []
    seen, cursor = [], None
    while True:
        query = {"customer_id": "cust-a", "limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await gateway.client.get("/v1/orders", params=query)).json()
        seen += [order["id"] for order in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == list(reversed(mine))


async def test_an_order_is_cancelled_and_its_workflow_told(gateway: Gateway):
    """The call to the workflow is in the same transaction; the reason goes into no event."""
    order = await gateway.place()
    path = f"/v1/orders/{order['id']}/cancel"
    answer = await gateway.post(path, {"reason": "ordered twice"}, idempotency="c")
    assert (answer.status_code, answer.json()["status"], answer.json()["version"]) == (200, "cancelling", 2)
    kinds = await gateway.database.fetch("SELECT kind FROM workflow_outbox WHERE order_id = $1", order["id"])
    assert sorted(row["kind"] for row in kinds) == ["cancel", "start"]
    assert await gateway.database.fetchval("SELECT cancel_reason FROM orders") == "ordered twice"
    assert await gateway.database.fetchval("SELECT count(*) FROM events WHERE data::text LIKE '%twice%'") == 0
    again = await gateway.post(path, {"reason": "ordered twice"}, idempotency="c")
    assert again.content == answer.content
    assert again.headers["idempotent-replayed"] == "true"
    problem(await gateway.post(path, {}, idempotency="c"), 422, "idempotency-key-reused")
    other = await gateway.post(path, idempotency="d")
    assert (other.status_code, other.json()["version"]) == (200, 2)
    assert (await gateway.client.get(f"/v1/orders/{order['id']}")).json()["status"] == "cancelling"


async def test_what_is_dispatched_is_too_late_to_cancel(gateway: Gateway):
    """409, and the refusal is not stored under the key."""
    order = await gateway.place()
    await dispatch(gateway, order["id"])
    path = f"/v1/orders/{order['id']}/cancel"
    problem(await gateway.post(path, {}, idempotency="c"), 409, "too-late")
    assert await gateway.database.fetchval("SELECT count(*) FROM idempotency WHERE key = 'c'") == 0


async def test_cancelling_what_is_not_there_is_not_found(gateway: Gateway):
    """Unknown ids of the right and of the wrong form."""
    for identity in ("ord_01hzy4x9w2v6q8r0t5s3n1m7k9", "nonsense", "*"):
        problem(await gateway.post(f"/v1/orders/{identity}/cancel", {}), 404, "not-found")


async def test_prefer_wait_answers_when_the_order_is_confirmed(gateway: Gateway):
    """200 with the order as it then is, soon after the commit, though Redis was never told."""
    placing = asyncio.create_task(
        gateway.post("/v1/orders", gateway.order(), headers={"Prefer": "respond-async, wait=20"})
    )
    while not (identity := await gateway.database.fetchval("SELECT id FROM orders")):
        await asyncio.sleep(0.01)
    await confirm(gateway, identity)
    async with asyncio.timeout(15):  # sooner than it would end by itself
        answer = await placing
    assert (answer.status_code, answer.json()["status"]) == (200, "confirmed")
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.headers["location"] == f"/v1/orders/{identity}"
    read = await gateway.client.get(f"/v1/orders/{identity}")
    assert (read.json(), read.headers["etag"]) == (answer.json(), answer.headers["etag"])
    stored = await gateway.database.fetchrow("SELECT status, answer FROM idempotency WHERE caller <> 'seed'")
    assert stored["status"] == 202
    assert json.loads(stored["answer"])["status"] == "accepted"


async def test_prefer_wait_ends_with_the_first_answer(gateway: Gateway):
    """202 after the time that was asked for."""
    answer = await gateway.post("/v1/orders", gateway.order(), headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
    assert answer.headers["preference-applied"] == "wait=1"


@pytest.mark.parametrize("prefer", ["", "wait", "wait=-1", "wait=x", "return=minimal", "await=5", "wait=0"])
async def test_a_preference_that_is_none_is_ignored(gateway: Gateway, prefer: str):
    """RFC 7240: what is not understood is not applied."""
    answer = await gateway.post("/v1/orders", gateway.order(), headers={"Prefer": prefer})
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


async def test_the_tests_own_steps_are_the_domains(gateway: Gateway):
    """What these tests call confirming and dispatching is what the domain decides."""
    order = await gateway.place()
    loaded = await gateway.services.orders.load(order["id"])
    assert decide(loaded, RecordReservation(()))
    await confirm(gateway, order["id"])
    loaded = await gateway.services.orders.load(order["id"])
    assert loaded.status == "confirmed"
    assert decide(loaded, ReleaseOrder())


async def test_many_may_wait_at_once_and_ask_seldom(gateway: Gateway, monkeypatch):
    """Forty waiters cost hardly more questions than one."""
    asked = []
    settled = gateway.services.lists.settled

    async def counted(order_ids):
        asked.append(len(order_ids))
        return await settled(order_ids)

    monkeypatch.setattr(gateway.services.lists, "settled", counted)
    placing = [gateway.post("/v1/orders", gateway.order(), headers={"Prefer": "wait=1"}) for _ in range(40)]
    answers = await asyncio.gather(*placing)
    assert {answer.status_code for answer in answers} == {202}
    assert len(asked) < 300
    assert sum(asked) > 400


@pytest.mark.parametrize(
    "planted",
    [
        b"9 9\n{not json",
        b"99 99\n{}",
        b"\n\xff\xfe",
        b'99 99\n{"id":"ord_00000000000000000000000000","customer_id":"x","version":9,"waiting_on":null}',
    ],
)
async def test_redis_is_not_believed(gateway: Gateway, redis_url: str, planted: bytes):
    """Whatever somebody wrote there as an order's document, readers see the order."""
    order = (await gateway.place()).copy()
    async with redis.asyncio.from_url(redis_url) as client:
        await client.set(order_document("test", order["id"]), planted)
        for _ in range(10):
            answer = await gateway.client.get(f"/v1/orders/{order['id']}")
            assert answer.status_code == 200
            assert answer.json()["id"] == order["id"]
