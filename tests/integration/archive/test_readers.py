"""Whoever reads what has left the database is told so: consumers, pages of events, streams."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from app.consumer.dispatch import Group
from app.consumer.effect import Delivery, Effect, MissingEventsError
from app.domain.events import PriceChanged
from app.domain.ids import order_id
from app.infra.postgres.projections import Effects, PostgresProjections
from tests.integration.archive.ages import Ages, month
from tests.integration.gateway.served import Gateway, problem, serving
from tests.integration.postgres.past import prices, store

ORDER = order_id(int(month(-4).timestamp() * 1000), bytes(10))
OLDER = order_id(int(month(-4).timestamp() * 1000), bytes(9) + b"1")
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
async def gone(ages: Ages) -> Ages:
    """Three of the months are only in the archive."""
    await ages.archive(-5, -4, -3)
    await ages.drop(-2)
    return ages


class Seen:
    """A group that remembers what it was given."""

    def __init__(self, ages: Ages, name: str) -> None:
        self.given: list[str] = []
        kind = str(PriceChanged.__struct_config__.tag)
        group = Group(name, {kind: (self._see,)}, ())
        self.effect = Effect(group, PostgresProjections(ages.database, "/test"))

    async def _see(self, events, effects: Effects) -> None:
        self.given += [event.id for event in events]


async def test_a_new_group_begins_where_the_events_begin(gone: Ages):
    """What is in the archive only is passed over; the gap job finds nothing behind afterwards."""
    new = Seen(gone, "new")
    await new.effect.apply([Delivery("cup", 16), Delivery("bowl", 6)])
    assert new.given == [f"cup:{number}" for number in range(10, 17)]
    store_ = PostgresProjections(gone.database, "/test")
    behind = await store_.products_behind("new", "", quiet_s=0, page_size_max=10)
    assert [(x.subject, x.version) for x in behind] == [("mug", 9)]


@pytest.mark.full
async def test_what_no_archive_has_is_missing_still(gone: Ages):
    """A stream tells of more than there ever was here."""
    new = Seen(gone, "new")
    with pytest.raises(MissingEventsError, match="bowl:7"):
        await new.effect.apply([Delivery("bowl", 7)])


@pytest.mark.full
async def test_before_anything_was_dropped_nothing_is_passed_over(ages: Ages):
    """An event that is not there is missing, however it came about."""
    await ages.connection.execute("SET session_replication_role = replica")
    await ages.connection.execute("DELETE FROM events WHERE subject = 'bowl' AND sequence = 1")
    with pytest.raises(MissingEventsError, match="bowl:1"):
        await Seen(ages, "new").effect.apply([Delivery("bowl", 6)])


@pytest.fixture
async def gateway(gone: Ages, redis_url: str) -> AsyncIterator[Gateway]:
    """A gateway in front of it, with an order that is done, of which two of five events are here."""
    history = prices(ORDER, 1, [month(-4)] * 3 + [month(-1)] * 2)
    await store(gone.connection, history[3:], head=False)
    await an_order(gone, ORDER, history[-1].hash)
    await an_order(gone, OLDER, history[-1].hash)
    async with serving(gone.url, redis_url) as served:
        yield served


async def an_order(ages: Ages, identity: str, last_hash: bytes) -> None:
    """A completed one of five events."""
    payment = '{"status":"captured","authorized":1,"captured":1}'
    await ages.connection.execute(
        "INSERT INTO orders (id, customer_id, status, currency, lines, total, payment, stock, correlation_id,"
        " version, last_hash, created_at, updated_at)"
        " VALUES ($1, 'c', 'completed', 'USD', '[]', 1, $4, 'none', 'c', 5, $2, $3, $3)",
        *(identity, last_hash, month(-4), payment),
    )


async def test_the_pages_of_an_order_say_where_its_history_begins(gateway: Gateway):
    """As far as it is not here, or wholly; whoever asks for what is here is told nothing else."""
    answer = (await gateway.client.get(f"/v1/orders/{ORDER}/events")).json()
    assert ([item["sequence"] for item in answer["items"]], answer["archived_through"]) == ([4, 5], 3)
    answer = (await gateway.client.get(f"/v1/orders/{OLDER}/events")).json()
    assert (answer["items"], answer["next_cursor"], answer["archived_through"]) == ([], None, 5)
    for after, left in ((3, [4, 5]), (5, [])):
        answer = (await gateway.client.get(f"/v1/orders/{ORDER}/events?after={after}")).json()
        assert [item["sequence"] for item in answer["items"]] == left
        assert "archived_through" not in answer


async def test_a_stream_of_an_order_says_it_and_goes_on(gateway: Gateway):
    """In place of the events; whoever comes again with the id of that is told the rest, or that it is all."""
    answer = await gateway.client.get(f"/v1/orders/{ORDER}/events", headers=STREAM)
    said, *events = blocks(answer.text)
    data = {"subject": ORDER, "archived_through": 3}
    assert said == {
        "id": f"{ORDER}:3",
        "event": "events.archived",
        "data": msgspec.json.encode(data).decode(),
    }
    assert [block["id"] for block in events] == [f"{ORDER}:4", f"{ORDER}:5"]
    behind = {**STREAM, "Last-Event-ID": f"{ORDER}:3"}
    answer = await gateway.client.get(f"/v1/orders/{ORDER}/events", headers=behind)
    assert [block["id"] for block in blocks(answer.text)] == [f"{ORDER}:4", f"{ORDER}:5"]
    answer = await gateway.client.get(f"/v1/orders/{OLDER}/events", headers=STREAM)
    assert [block["event"] for block in blocks(answer.text)] == ["events.archived"]
    answer = await gateway.client.get(
        f"/v1/orders/{OLDER}/events", headers={**STREAM, "Last-Event-ID": f"{OLDER}:5"}
    )
    assert answer.status_code == 204


async def test_a_stream_of_all_does_not_go_on_behind_what_is_archived(gateway: Gateway):
    """It says since when it can; of an event that never was it says that."""
    for last in ("cup:9", f"{ORDER}:3"):
        answer = await gateway.client.get("/v1/events", headers={**STREAM, "Last-Event-ID": last})
        said = problem(answer, 410, "events-archived")
        assert f"{month(-2):%Y-%m-%d}T00:00:00" in said["detail"]
    answer = await gateway.client.get("/v1/events", headers={**STREAM, "Last-Event-ID": "cup:99"})
    problem(answer, 400, "invalid-parameter")


def blocks(text: str) -> list[dict[str, str]]:
    """The events of a stream that has ended."""
    found = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.strip().split("\n\n")]
    return [block for block in found if "data" in block]
