"""Webhook endpoints over HTTP: made, seen, changed, rotated and deleted by whom they belong to."""

import asyncio
import base64
from typing import Any

import pytest

from app.infra.postgres import webhook_deliveries
from app.infra.postgres.event_outbox import envelope
from app.infra.postgres.webhook_endpoints import ENDPOINTS_MAX
from tests.integration.gateway.served import Gateway, problem, serving

PATH = "/v1/webhook-endpoints"
URL = "https://hooks.example.com/in?shop=1"
ALL = ("webhooks:read", "webhooks:write", "orders:read", "products:read", "inventory:read")
NOT_SHOWN = {
    "disabled_reason": None,
    "previous_secret_expires_at": None,
    "left_alone_until": None,
    "enabled": True,
}


async def make(gateway: Gateway, headers: dict[str, str] | None = None, **said: Any) -> dict[str, Any]:
    """A new endpoint with its secret."""
    answer = await gateway.post(PATH, {"url": URL, **said}, headers=headers or {})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def happen(gateway: Gateway, order_id: str) -> list[str]:
    """Write the deliveries of an order's events, as the consumer does; their ids."""
    rows = await gateway.database.fetch("SELECT * FROM events WHERE subject = $1", order_id)
    async with gateway.database.transaction():
        await webhook_deliveries.add(gateway.database, [envelope(row, "/holdfast/test") for row in rows])
    made = await gateway.database.fetch("SELECT id FROM webhook_deliveries WHERE subject = $1", order_id)
    return [row["id"] for row in made]


async def test_an_endpoint_is_made_and_its_secret_is_shown_once(gateway: Gateway):
    """The secret is 32 random bytes as Standard Webhooks write them, and is nowhere else."""
    answer = await gateway.post(
        PATH, {"url": URL, "event_types": ["order.completed.v1"] * 2}, idempotency="a"
    )
    assert answer.status_code == 201, answer.text
    endpoint, secret = answer.json()["endpoint"], answer.json()["secret"]
    assert answer.headers["location"] == f"{PATH}/{endpoint['id']}"
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert endpoint["event_types"] == ["order.completed.v1"]
    assert endpoint.items() >= {"url": URL, "description": "", "customer_id": None, **NOT_SHOWN}.items()
    again = await gateway.post(PATH, {"url": URL, "event_types": ["order.completed.v1"] * 2}, idempotency="a")
    assert (again.content, again.headers["idempotent-replayed"]) == (answer.content, "true")
    problem(await gateway.post(PATH, {"url": URL}, idempotency="a"), 422, "idempotency-key-reused")
    got = await gateway.client.get(f"{PATH}/{endpoint['id']}")
    assert got.json() == endpoint
    listed = await gateway.client.get(PATH)
    assert listed.json() == {"items": [endpoint], "next_cursor": None}
    assert secret not in got.text + listed.text


async def test_the_same_request_twice_at_once_makes_one(gateway: Gateway):
    """Whoever comes second gets the first one's answer."""
    answers = await asyncio.gather(*(gateway.post(PATH, {"url": URL}, idempotency="b") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len((await gateway.client.get(PATH)).json()["items"]) == 1


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/url"]),
        ({"url": "http://hooks.example.com/"}, ["/url"]),
        ({"url": "https://127.0.0.1/"}, ["/url"]),
        ({"url": "https://169.254.169.254/latest"}, ["/url"]),
        ({"url": "https://[::ffff:10.0.0.1]/"}, ["/url"]),
        ({"url": "https://user:pass@example.com/"}, ["/url"]),
        ({"url": "https://example.com:6379x/"}, ["/url"]),
        ({"url": URL, "event_types": ["order.completed.v1", "order.eaten.v1"]}, ["/event_types/1"]),
        ({"url": "ftp://x/", "event_types": ["x"]}, ["/url", "/event_types/0"]),
        ({"url": URL, "secret": "whsec_mine"}, ["/secret"]),
        ({"url": URL, "event_types": "order.completed.v1"}, ["/event_types"]),
    ],
)
async def test_what_cannot_be_is_refused_with_its_field(shared_gateway: Gateway, body, pointers):
    """Where events must not go, and what never happens."""
    problem(await shared_gateway.post(PATH, body), 422, "invalid-request", *pointers)


async def test_in_development_a_receiver_may_be_on_this_host(database_url: str, redis_url: str):
    """Over plain HTTP."""
    async with serving(database_url, redis_url, ENVIRONMENT="dev") as gateway:
        made = await make(gateway, url="http://127.0.0.1:9999/")
        assert made["endpoint"]["url"] == "http://127.0.0.1:9999/"


async def test_endpoints_are_listed_in_pages(gateway: Gateway):
    """The oldest first."""
    made = [(await make(gateway, description=str(number)))["endpoint"] for number in range(5)]
    found, query = [], {"limit": "2"}
    while True:
        page = (await gateway.client.get(PATH, params=query)).json()
        found += page["items"]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert found == made
    problem(await gateway.client.get(PATH, params={"cursor": "x"}), 400, "invalid-parameter", "/cursor")
    problem(await gateway.client.get(PATH, params={"state": "x"}), 400, "invalid-parameter", "/state")


async def test_an_endpoint_is_changed_by_what_is_said(gateway: Gateway):
    """What is not said stays."""
    one = (await make(gateway, event_types=["order.completed.v1"]))["endpoint"]
    path = f"{PATH}/{one['id']}"
    off = (await gateway.client.patch(path, json={"enabled": False})).json()
    assert (off["enabled"], off["disabled_reason"], off["url"]) == (False, "by_hand", URL)
    new = {"url": "https://other.example.com/", "event_types": [], "description": "new", "enabled": True}
    on = (await gateway.client.patch(path, json=new)).json()
    assert on.items() >= {**new, "disabled_reason": None}.items()
    assert on["created_at"] == one["created_at"]
    assert (await gateway.client.patch(path, json={})).json()["url"] == new["url"]
    problem(
        await gateway.client.patch(path, json={"url": "http://x.example/"}), 422, "invalid-request", "/url"
    )
    problem(
        await gateway.client.patch(path, json={"customer_id": "x"}), 422, "invalid-request", "/customer_id"
    )
    assert (await gateway.client.get(path)).json()["url"] == new["url"]


async def test_a_deleted_endpoint_is_gone(gateway: Gateway):
    """For everybody, with what it said; deleting again finds nothing."""
    one = await make(gateway)
    path = f"{PATH}/{one['endpoint']['id']}"
    assert (await gateway.client.delete(path)).status_code == 204
    for answer in (
        await gateway.client.delete(path),
        await gateway.client.get(path),
        await gateway.client.patch(path, json={"enabled": True}),
        await gateway.post(f"{path}/rotate-secret"),
        await gateway.client.get(f"{path}/deliveries"),
    ):
        problem(answer, 404, "not-found")
    assert (await gateway.client.get(PATH)).json()["items"] == []
    (row,) = await gateway.database.fetch("SELECT url, description, secret FROM webhook_endpoints")
    assert set(row.values()) == {""}


async def test_a_secret_is_rotated_and_the_old_one_lasts_a_day(gateway: Gateway):
    """Or as long as somebody says."""
    one = await make(gateway)
    path = f"{PATH}/{one['endpoint']['id']}/rotate-secret"
    answer = await gateway.post(path, idempotency="r")
    assert answer.status_code == 200, answer.text
    assert answer.json()["secret"] != one["secret"]
    (row,) = await gateway.database.fetch(
        "SELECT *, extract(epoch FROM previous_until - now()) AS left_s FROM webhook_endpoints"
    )
    assert (row["secret"], row["previous_secret"]) == (answer.json()["secret"], one["secret"])
    assert 86_000 < row["left_s"] <= 86_400
    assert answer.json()["endpoint"]["previous_secret_expires_at"] is not None
    assert (await gateway.post(path, idempotency="r")).content == answer.content
    short = await gateway.post(path, {"overlap_s": 0})
    assert short.json()["secret"] != answer.json()["secret"]
    problem(await gateway.post(path, {"overlap_s": -1}), 422, "invalid-request", "/overlap_s")
    problem(await gateway.client.post(path), 400, "idempotency-key-missing")


async def test_an_endpoint_that_is_left_alone_says_until_when(gateway: Gateway):
    """Alone and in the list; somebody who enables it anew begins afresh."""
    one = (await make(gateway))["endpoint"]
    path = f"{PATH}/{one['id']}"
    await gateway.database.execute(
        "INSERT INTO webhook_breakers (endpoint_id, failures, openings, open_until)"
        " VALUES ($1, 5, 1, '2100-01-01T00:00:00Z')",
        one["id"],
    )
    shown = (await gateway.client.get(path)).json()
    assert shown["left_alone_until"] == "2100-01-01T00:00:00.000000Z"
    assert (await gateway.client.get(PATH)).json()["items"] == [shown]
    again = await gateway.client.patch(path, json={"enabled": True})
    assert again.json()["left_alone_until"] is None
    assert (await gateway.client.get(path)).json()["left_alone_until"] is None


async def test_greetings_of_one_second_differ(gateway: Gateway):
    """Whoever keeps the highest sequence takes both."""
    path = f"{PATH}/{(await make(gateway))['endpoint']['id']}/test"
    events = [(await gateway.post(path)).json()["event_id"] for _ in range(3)]
    assert len(set(events)) == len(events)


async def test_the_log_shows_what_became_of_each_delivery(gateway: Gateway):
    """Newest first, by state, and only of this endpoint."""
    one = (await make(gateway))["endpoint"]
    orders = [await gateway.place() for _ in range(3)]
    for order in orders:
        await happen(gateway, order["id"])
    await make(gateway)
    await gateway.database.execute(
        "UPDATE webhook_deliveries SET state = 'failed', attempts = 3, last_status = 500, last_error = 'no',"
        " last_at = now(), next_at = NULL WHERE subject = $1",
        orders[0]["id"],
    )
    path = f"{PATH}/{one['id']}/deliveries"
    page = (await gateway.client.get(path, params={"limit": 2})).json()
    rest = (await gateway.client.get(path, params={"cursor": page["next_cursor"]})).json()
    found = page["items"] + rest["items"]
    assert [item["event_id"] for item in found] == [f"{order['id']}:1" for order in reversed(orders)]
    assert {item["event_type"] for item in found} == {"order.accepted.v1"}
    failed = (await gateway.client.get(path, params={"state": "failed"})).json()["items"]
    assert failed == found[2:]
    shown = {
        "state": "failed",
        "attempts": 3,
        "last_status": 500,
        "last_error": "no",
        "next_attempt_at": None,
    }
    assert failed[0].items() >= shown.items()
    problem(await gateway.client.get(path, params={"state": "lost"}), 400, "invalid-parameter", "/state")


async def test_a_delivery_is_sent_again_when_somebody_says_so(gateway: Gateway):
    """It is pending again, and the worker is told; not while the endpoint is disabled."""
    one = (await make(gateway))["endpoint"]
    (delivery,) = await happen(gateway, (await gateway.place())["id"])
    await gateway.database.execute("UPDATE webhook_deliveries SET state = 'failed', next_at = NULL")
    path = f"{PATH}/{one['id']}/deliveries/{delivery}/redeliver"
    answer = await gateway.post(path)
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "pending"
    told = await gateway.database.fetch("SELECT workflow_id FROM workflow_jobs ORDER BY id")
    assert [row["workflow_id"] for row in told] == [f"webhook/{delivery}/2"]
    for other in ("msg_other", "%00", "msg_" + "0" * 32):
        problem(await gateway.post(path.replace(delivery, other)), 404, "not-found")
    await gateway.client.patch(f"{PATH}/{one['id']}", json={"enabled": False})
    problem(await gateway.post(path), 409, "webhook-endpoint-disabled")


async def test_a_test_is_sent_and_is_in_the_log(gateway: Gateway):
    """Once for a key; not while the endpoint is disabled."""
    one = (await make(gateway, event_types=["price.changed.v1"]))["endpoint"]
    path = f"{PATH}/{one['id']}"
    answers = [await gateway.post(f"{path}/test", idempotency="t") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    (listed,) = (await gateway.client.get(f"{path}/deliveries")).json()["items"]
    assert listed == answers[0].json() == answers[1].json()
    assert (listed["event_type"], listed["state"]) == ("webhook.test.v1", "pending")
    told = await gateway.database.fetch("SELECT workflow_id FROM workflow_jobs")
    assert [row["workflow_id"] for row in told] == [f"webhook/{listed['id']}"]
    await gateway.client.patch(path, json={"enabled": False})
    problem(await gateway.post(f"{path}/test"), 409, "webhook-endpoint-disabled")


async def test_a_key_that_is_bound_to_a_customer_has_that_ones_endpoints_only(gateway: Gateway):
    """It makes none for others, sees none of others, and is sent nothing of others."""
    bound = await gateway.key("webhooks:read", "webhooks:write", "orders:read", customer="cust-2")
    everybodys = (await make(gateway))["endpoint"]
    hers = (await make(gateway, headers=bound))["endpoint"]
    assert hers["customer_id"] == "cust-2"
    refused = await gateway.post(PATH, {"url": URL, "customer_id": "cust-3"}, headers=bound)
    problem(refused, 403, "forbidden")
    theirs = (await make(gateway, customer_id="cust-3"))["endpoint"]
    listed = (await gateway.client.get(PATH, headers=bound)).json()["items"]
    assert [one["id"] for one in listed] == [hers["id"]]
    for other in (everybodys, theirs):
        path = f"{PATH}/{other['id']}"
        for answer in (
            await gateway.client.get(path, headers=bound),
            await gateway.client.patch(path, json={"enabled": False}, headers=bound),
            await gateway.client.delete(path, headers=bound),
            await gateway.post(f"{path}/rotate-secret", headers=bound),
            await gateway.client.get(f"{path}/deliveries", headers=bound),
        ):
            problem(answer, 404, "not-found")
    orders = [await gateway.place(customer_id=name) for name in ("cust-1", "cust-2")]
    for order in orders:
        await happen(gateway, order["id"])
    rows = await gateway.database.fetch(
        "SELECT subject FROM webhook_deliveries WHERE endpoint_id = $1", hers["id"]
    )
    assert [row["subject"] for row in rows] == [orders[1]["id"]]


async def test_whoever_makes_an_endpoint_may_read_what_is_sent_to_it(gateway: Gateway):
    """An endpoint is no way round a scope."""
    narrow = await gateway.key("webhooks:read", "webhooks:write", "orders:read")
    problem(await gateway.post(PATH, {"url": URL}, headers=narrow), 403, "forbidden")
    assert await make(gateway, headers=narrow, customer_id="cust-1")
    for missing in ALL[:2]:
        key = await gateway.key(*(scope for scope in ALL if scope != missing))
        path = f"{PATH}/{(await make(gateway))['endpoint']['id']}"
        method = gateway.client.get if missing == "webhooks:read" else gateway.client.delete
        problem(await method(path, headers=key), 403, "forbidden")


async def test_whoever_has_events_sent_or_is_shown_a_secret_may_read_them(gateway: Gateway):
    """Of the shop's endpoints all that happens, of a customer's the orders; to stop something takes none."""
    for scopes, customer in ((ALL, None), (ALL[:3], "cust-2")):
        full = await gateway.key(*scopes, customer=customer)
        few = await gateway.key(*ALL[:2], customer=customer)
        path = f"{PATH}/{(await make(gateway, headers=full))['endpoint']['id']}"
        await happen(gateway, (await gateway.place(customer_id="cust-2"))["id"])
        (delivery, *_) = (await gateway.client.get(f"{path}/deliveries", headers=few)).json()["items"]
        again = f"{path}/deliveries/{delivery['id']}/redeliver"
        for key, status in ((few, 403), (full, 200)):
            changes: list[dict[str, Any]] = [{"url": URL}, {"event_types": []}, {"enabled": True}]
            for change in changes:
                changed = await gateway.client.patch(path, json=change, headers=key)
                assert changed.status_code == status, (change, changed.text)
            assert (await gateway.post(f"{path}/rotate-secret", headers=key)).status_code == status
            assert (await gateway.post(again, headers=key)).status_code == (202 if status == 200 else status)
        assert (await gateway.post(f"{path}/test", headers=few)).status_code == 202
        for change in ({"description": "x"}, {"enabled": False}):
            assert (await gateway.client.patch(path, json=change, headers=few)).status_code == 200
        assert (await gateway.client.delete(path, headers=few)).status_code == 204


async def test_a_repetition_gets_its_answer_though_the_endpoint_is_off_by_now(gateway: Gateway):
    """It is not judged again."""
    path = f"{PATH}/{(await make(gateway))['endpoint']['id']}"
    (delivery,) = await happen(gateway, (await gateway.place())["id"])
    wanted = (f"{path}/test", f"{path}/deliveries/{delivery}/redeliver")
    first = [await gateway.post(one, idempotency="once") for one in wanted]
    await gateway.client.patch(path, json={"enabled": False})
    again = [await gateway.post(one, idempotency="once") for one in wanted]
    assert [one.content for one in again] == [one.content for one in first]


async def test_what_is_in_the_archive_only_is_not_sent_again(gateway: Gateway):
    """It is refused with the command that puts the month back; a test needs no event."""
    path = f"{PATH}/{(await make(gateway))['endpoint']['id']}"
    greeting = (await gateway.post(f"{path}/test")).json()["id"]
    (delivery,) = await happen(gateway, (await gateway.place())["id"])
    await gateway.database.execute(
        "UPDATE webhook_deliveries SET state = 'failed', happened_at = '2020-02-29T23:59:59Z'"
    )
    refused = problem(
        await gateway.post(f"{path}/deliveries/{delivery}/redeliver"), 409, "webhook-event-archived"
    )
    assert "holdfast events restore --month 2020-02" in refused["detail"]
    assert (await gateway.post(f"{path}/deliveries/{greeting}/redeliver")).status_code == 202


@pytest.mark.full
async def test_there_are_only_so_many_endpoints(gateway: Gateway):
    """However many are asked for at once; a customer's do not count against another's."""
    asked = (gateway.post(PATH, {"url": URL}) for _ in range(ENDPOINTS_MAX + 20))
    statuses = [answer.status_code for answer in await asyncio.gather(*asked)]
    assert statuses.count(201) == ENDPOINTS_MAX
    problem(await gateway.post(PATH, {"url": URL}), 409, "too-many-webhook-endpoints")
    assert await make(gateway, customer_id="cust-1")
