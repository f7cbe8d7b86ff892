"""Replays over HTTP: asked for once, looked at, applied as shown, stopped; what makes no sense is refused."""

import pytest

from app.replay.engine import Engine
from app.replay.registry import handlers
from tests.integration.gateway.served import Gateway, problem

URL = "/v1/replays"


async def asked(gateway: Gateway, key: str = "key", **body):
    """The answer to somebody who asks."""
    return await gateway.client.post(URL, json=body, headers={"Idempotency-Key": key})


async def carried(gateway: Gateway, replay: str) -> dict:
    """A replay, carried to its end as a worker does it."""
    await Engine(gateway.services.intake._database, handlers()).carry(replay, seconds=30)
    return (await gateway.client.get(f"{URL}/{replay}")).json()


async def test_a_replay_is_shown_and_applied(gateway: Gateway):
    """Two rows that should not be there: shown page by page, then gone."""
    database = gateway.services.intake._database
    await database.execute(
        "INSERT INTO daily_summary (day, currency, captured) "
        "VALUES ('2020-02-02', 'EUR', 7), ('2020-02-03', 'EUR', 5)"
    )
    answer = await asked(gateway, handler="daily_summary")
    assert answer.status_code == 202
    replay = answer.json()
    assert answer.headers["location"] == f"{URL}/{replay['id']}"
    assert (replay["state"], replay["apply"], replay["progress"]["done"]) == ("waiting", False, 0)
    shown = await carried(gateway, replay["id"])
    assert (shown["state"], shown["changes"], shown["applied"]) == ("shown", 2, 0)
    assert shown["summary"]["sums"] == {"EUR": {"captured": -12}}
    first = (await gateway.client.get(f"{URL}/{replay['id']}/changes", params={"limit": 1})).json()
    rest = {"limit": 1, "cursor": first["next_cursor"]}
    second = (await gateway.client.get(f"{URL}/{replay['id']}/changes", params=rest)).json()
    assert second["next_cursor"] is None
    days = [page["items"][0]["key"]["day"] for page in (first, second)]
    assert days == ["2020-02-02", "2020-02-03"]
    for _ in range(2):
        assert (await gateway.client.post(f"{URL}/{replay['id']}/apply")).status_code == 202
    applied = await carried(gateway, replay["id"])
    assert (applied["state"], applied["applied"]) == ("applied", 2)
    assert not await database.fetch("SELECT FROM daily_summary")
    problem(await gateway.client.post(f"{URL}/{replay['id']}/cancel"), 409, "replay-not-now")


async def test_asking_twice_with_one_key_is_asking_once(gateway: Gateway):
    """The first answer again; another body under the key is refused."""
    first, again = await asked(gateway, handler="analytics"), await asked(gateway, handler="analytics")
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    problem(await asked(gateway, handler="daily_summary"), 422, "idempotency-key-reused")
    listed = (await gateway.client.get(URL)).json()["items"]
    assert [replay["id"] for replay in listed] == [first.json()["id"]]


async def test_replays_are_listed_newest_first(gateway: Gateway):
    """Page by page, by handler, by state."""
    names = ["analytics", "daily_summary", "analytics"]
    ids = [(await asked(gateway, str(n), handler=name)).json()["id"] for n, name in enumerate(names)]
    page = (await gateway.client.get(URL, params={"limit": 2})).json()
    rest = (await gateway.client.get(URL, params={"cursor": page["next_cursor"]})).json()
    assert [x["id"] for x in page["items"] + rest["items"]] == sorted(ids, reverse=True)
    of_one = (await gateway.client.get(URL, params={"handler": "daily_summary"})).json()["items"]
    assert [x["id"] for x in of_one] == [ids[1]]
    assert not (await gateway.client.get(URL, params={"state": "shown"})).json()["items"]


async def test_a_replay_is_stopped_and_stays_so(gateway: Gateway):
    """Nothing goes on, nothing can be applied."""
    replay = (await asked(gateway, handler="analytics", apply=True)).json()["id"]
    for _ in range(2):
        stopped = await gateway.client.post(f"{URL}/{replay}/cancel")
        assert (stopped.status_code, stopped.json()["state"]) == (202, "cancelled")
    assert (await carried(gateway, replay))["state"] == "cancelled"
    problem(await gateway.client.post(f"{URL}/{replay}/apply"), 409, "replay-not-now")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"handler": "nothing"}, "/handler"),
        ({"handler": "daily_summary", "type": "order.accepted.v1"}, "/type"),
        ({"handler": "daily_summary", "order": "ord_06dzpv7x2m8wq3k9n5t1r4c7j0"}, "/order"),
        ({"handler": "daily_summary", "from": "2026-01-31T12:00:00Z"}, "/from"),
        ({"handler": "analytics", "to": "2026-01-31T12:00:30Z"}, "/to"),
        ({"handler": "analytics", "from": "2026-01-31T12:00:00Z", "to": "2026-01-31T11:00:00Z"}, "/to"),
        ({"handler": "analytics", "from": "2026-01-31T12:00:00"}, "/from"),
        ({"handler": "analytics", "from": "0001-01-01T00:00:00+14:00"}, "/from"),
        ({"handler": "analytics", "to": "9999-12-31T23:59:00-14:00"}, "/to"),
        ({"handler": "analytics", "rate": 0}, "/rate"),
        ({"handler": "analytics", "parameters": {"a": 1}}, "/parameters"),
        ({"handler": "order_documents", "from": "2026-01-31T12:00:00Z"}, "/from"),
        ({"handler": "analytics", "order": "x"}, "/order"),
        ({"handler": "analytics", "type": "nothing.happened.v1"}, "/type"),
    ],
)
async def test_what_makes_no_sense_is_refused(shared_gateway: Gateway, body, pointer):
    """The field is named, and nothing is on record."""
    answer = await asked(shared_gateway, handler=body.pop("handler"), **body)
    assert pointer in [fault["pointer"] for fault in problem(answer, 422, "invalid-request")["errors"]]


@pytest.mark.parametrize("identity", ["x", "rpl_06dzpv7x2m8wq3k9n5t1r4c7j0", "%00"])
async def test_what_is_not_there_is_404(shared_gateway: Gateway, identity: str):
    """For all of them."""
    client = shared_gateway.client
    problem(await client.get(f"{URL}/{identity}"), 404, "not-found")
    problem(await client.get(f"{URL}/{identity}/changes"), 404, "not-found")
    for what in ("apply", "cancel"):
        problem(await client.post(f"{URL}/{identity}/{what}"), 404, "not-found")


@pytest.mark.parametrize("query", ["state=nothing", "handler=%00", "cursor=x", "limit=0", "other=1"])
async def test_wrong_parameters_are_400(shared_gateway: Gateway, query: str):
    """As everywhere."""
    problem(await shared_gateway.client.get(f"{URL}?{query}"), 400, "invalid-parameter")
