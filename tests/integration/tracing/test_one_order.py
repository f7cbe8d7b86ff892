"""One order is one trace, from the request to what its last event brings about, and says nothing personal."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import redis.asyncio
from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer

from app.contracts.temporal import workflow_id
from app.infra.temporal.converter import DATA_CONVERTER
from app.observability import tracing
from app.workers.traces import Headers
from app.workers.workflows.order import OrderWorkflow
from tests.conftest import TEMPLATE
from tests.integration.tracing.shop import MODES, open_shop
from tests.otlp import Collector, Span, target
from tests.replay.test_histories import HISTORIES
from tests.stack import Postgres, Redis, Temporal
from tests.workflows.world import SANDBOX

CANARY = "canary-7f3a"
ADDRESS = {
    "name": f"Cora {CANARY}",
    "line1": f"7 {CANARY} Lane",
    "city": "Nowhere",
    "postal_code": "12345",
    "country": "US",
    "email": f"{CANARY}@example.com",
}
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""Whoever places the order has a trace, too."""
UNWANTED = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
MAILS = {"accepted", "confirmed", "dispatched", "completed"}
LAST = "order.completed.v1"
pytestmark = pytest.mark.timeout(400)

STEPS = ("reserve_stock", "authorize_payment", "book_shipments", "release_shipments", "capture_payment")


class Traced(NamedTuple):
    """An order that was traced, and everything that came of it."""

    order: dict[str, Any]
    collector: Collector
    logs: dict[str, str]
    exits: dict[str, int]
    history: WorkflowHistory

    @property
    def trace(self) -> list[Span]:
        """The spans of the order's trace."""
        return [span for span in self.collector.spans if span.trace == CALLER[3:35]]

    def named(self, name: str) -> list[Span]:
        """The spans of the order's trace of this name: one, unless a busy machine made it try again."""
        found = [span for span in self.trace if span.name == name]
        assert found, name
        return found

    def under(self, name: str) -> set[str]:
        """The names of the spans right under those."""
        ids = {span.id for span in self.named(name)}
        return {span.name for span in self.trace if span.parent in ids}


async def emptied(server: Redis) -> None:
    """Nothing is left in Redis then."""
    async with redis.asyncio.from_url(server.url) as client:
        await client.flushall()


def told_by_mail(collector: Collector) -> set[str]:
    """What mails were sent about."""
    return {span.attributes["holdfast.mail"] for span in collector.named("send mail")}


def handled(collector: Collector, name: str) -> set[str]:
    """The types of the events that spans of this name were about."""
    spans = collector.named(name)
    return {kind for span in spans for kind in span.attributes["holdfast.event_types"]}


@pytest.fixture(scope="module")
async def traced(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: Postgres,
    redis_server: Redis,
    temporal_server: Temporal,
) -> AsyncIterator[Traced]:
    """Two orders, of which one is to be traced, from their requests to their ends and that of the modes."""
    database = await postgres_server.create("traced", TEMPLATE)
    await emptied(redis_server)
    folder = tmp_path_factory.mktemp("traced")
    try:
        with Collector() as collector:
            told = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "OTEL_EXPORTER_OTLP_HEADERS": "x-token=a%20b",
                "OTEL_TRACES_SAMPLER_ARG": "0",
            }
            async with open_shop(folder, database, redis_server.url, temporal_server, **told) as shop:
                hook = {"url": f"{collector.url}/hook", "event_types": [LAST]}
                made = await shop.client.post(
                    "/v1/webhook-endpoints", json=hook, headers={"Idempotency-Key": "hook"}
                )
                assert made.status_code == 201, made.text
                order, _ = await asyncio.gather(
                    shop.order(body={"shipping_address": ADDRESS}, headers={"traceparent": CALLER}),
                    shop.order(body={"shipping_address": ADDRESS}, headers={"traceparent": UNWANTED}),
                )
                await collector.until(lambda: len(collector.others) == 2)
                await collector.until(lambda: told_by_mail(collector) == MAILS)
                await collector.until(lambda: collector.named("end OrderWorkflow"))
                await collector.until(lambda: LAST in handled(collector, "process projections"))
                exits = await shop.stop()
                temporal = await Client.connect(temporal_server.address, namespace=temporal_server.namespace)
                history = await temporal.get_workflow_handle(workflow_id(order["id"])).fetch_history()
            yield Traced(order, collector, {mode: shop.log(mode) for mode in MODES}, exits, history)
    finally:
        await emptied(redis_server)  # it is marked as that of the environment `dev`
        await postgres_server.drop("traced")


async def test_the_request_is_under_its_caller_s_span(traced: Traced):
    """Whoever sends a traceparent finds the order in its own trace."""
    (request,) = traced.named("POST /v1/orders")
    assert (request.parent, request.kind, request.service) == (CALLER[36:52], "server", "holdfast-gateway")
    assert request.attributes["http.response.status_code"] == 202
    assert request.attributes["holdfast.order_id"] == traced.order["id"]
    assert request.attributes["holdfast.correlation_id"] == traced.order["correlation_id"]


async def test_the_workflow_is_under_the_request(traced: Traced):
    """By way of its start; and it says when it ended."""
    assert "start OrderWorkflow" in traced.under("POST /v1/orders")
    assert traced.under("start OrderWorkflow") == {"run OrderWorkflow"}
    assert "end OrderWorkflow" in traced.under("run OrderWorkflow")


async def test_every_step_is_under_the_workflow(traced: Traced):
    """With its order."""
    assert set(STEPS) <= traced.under("run OrderWorkflow")
    spans = [span for step in STEPS for span in traced.named(step)]
    assert {span.attributes["holdfast.order_id"] for span in spans} == {traced.order["id"]}


async def test_calls_to_providers_are_under_their_steps(traced: Traced):
    """With how they were answered."""
    assert traced.under("authorize_payment") >= {"POST 127.0.0.1"}
    assert traced.under("book_shipments") >= {"PUT 127.0.0.1"}
    assert traced.named("PUT 127.0.0.1")[-1].attributes["http.response.status_code"] in {200, 201}


@pytest.mark.parametrize(
    ("event", "writer"),
    [
        ("order.accepted.v1", "POST /v1/orders"),
        ("inventory.reserved.v1", "reserve_stock"),
        ("payment.authorized.v1", "authorize_payment"),
        ("order.confirmed.v1", "book_shipments"),
        ("order.dispatched.v1", "release_shipments"),
        ("payment.captured.v1", "capture_payment"),
    ],
)
async def test_what_an_event_brings_about_is_under_what_wrote_it(traced: Traced, event: str, writer: str):
    """Or, where it was handled with an earlier event of the order, linked to it."""
    own = {(span.trace, span.id) for span in traced.named(writer)}
    effects = [s for s in traced.trace if event in s.attributes.get("holdfast.event_types", ())]
    assert {s.attributes["holdfast.group"] for s in effects} >= {"projections", "webhooks"}
    for effect in effects:
        assert own & {(effect.trace, effect.parent), *effect.links}


async def test_mails_and_webhooks_are_in_the_trace(traced: Traced):
    """The last things that an order brings about."""
    assert {span.attributes["holdfast.mail"] for span in traced.named("send mail")} == MAILS
    assert traced.named("send webhook")[-1].attributes["http.response.status_code"] == 200


async def test_what_works_for_many_is_a_trace_of_its_own_with_links(traced: Traced):
    """A commit, a reservation, a batch that is published: linked to what each of them works for."""
    for name, writer in (
        ("accept orders", "POST /v1/orders"),
        ("reserve stock", "reserve_stock"),
        ("publish events", "reserve_stock"),
    ):
        own = {(span.trace, span.id) for span in traced.named(writer)}
        linked = [span for span in traced.collector.named(name) if own & {*span.links}]
        assert {span.parent for span in linked} == {""}, name
        assert CALLER[3:35] not in {span.trace for span in linked}


async def test_a_caller_who_wants_no_trace_has_none(traced: Traced):
    """Its order was carried by the same processes at the same time."""
    assert {span.trace for span in traced.collector.spans}.isdisjoint({UNWANTED[3:35]})
    traces = {trace for span in traced.collector.spans for trace, _ in span.links}
    assert traces == {CALLER[3:35]}


async def test_no_span_says_anything_personal(traced: Traced):
    """Not even in a name, an error or a header."""
    assert traced.collector.bodies
    assert [body for body in traced.collector.bodies if CANARY.encode() in body] == []
    assert [body for body in traced.collector.bodies if b"cust-1" in body] == []


async def test_log_lines_name_the_trace(traced: Traced):
    """Those of the request, of every step, and of what is told and had its effect in between."""
    for mode, event in (
        ("gateway", "request"),
        ("worker", "workflow_told"),
        ("worker", "step_done"),
        ("consumer", "event_applied"),
    ):
        lines = [json.loads(line) for line in traced.logs[mode].splitlines() if line.startswith("{")]
        ours = [
            line.get("trace_id")
            for line in lines
            if line["event"] == event and line.get("correlation_id") == traced.order["correlation_id"]
        ]
        assert CALLER[3:35] in ours


async def test_the_collector_is_told_what_it_asks_for(traced: Traced):
    """A token, for one."""
    assert {headers["x-token"] for headers in traced.collector.headers} == {"a b"}


@pytest.mark.parametrize("is_traced", [True, False])
async def test_a_workflow_with_a_trace_replays_on_any_worker(traced: Traced, is_traced: bool):
    """Also on one that knows nothing of traces; and no replay makes a span."""
    with Collector() as collector:
        with tracing.started(target(collector.url) if is_traced else None):
            traces = tracing.active()
            await Replayer(
                workflows=[OrderWorkflow],
                data_converter=DATA_CONVERTER,
                workflow_runner=SANDBOX,
                interceptors=[Headers(traces)] if traces else [],
            ).replay_workflow(traced.history)
            await asyncio.sleep(0)
        assert collector.spans == []


@pytest.mark.parametrize("name", ["completed", "cancelled_after_paying"])
async def test_a_workflow_from_before_there_were_traces_replays(name: str):
    """On a worker that has them."""
    text = (HISTORIES / f"{name}.json").read_text()
    with tracing.started(target("http://127.0.0.1:1")):
        traces = tracing.active()
        assert traces is not None
        await Replayer(
            workflows=[OrderWorkflow],
            data_converter=DATA_CONVERTER,
            workflow_runner=SANDBOX,
            interceptors=[Headers(traces)],
        ).replay_workflow(WorkflowHistory.from_json(f"order/{name}", text))


async def test_the_modes_end_in_order(traced: Traced):
    """As they do without traces."""
    assert traced.exits == dict.fromkeys(MODES, 0)
