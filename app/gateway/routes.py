"""The one table of routes: what is served, to whom, and what it can answer.

The OpenAPI document is made from it. What every route of a kind can answer (a missing key, a body that is too
large, …) is added by `Route.problems`, so the table names only what is special.
"""

from typing import Final

from app.contracts.documents import EventPage, OrderDocument, Page
from app.domain.order import Status
from app.gateway import (
    carrier,
    examples,
    health,
    inventory,
    live_routes,
    messages,
    order_reads,
    orders,
    pages,
    products,
)
from app.gateway.insight_routes import DEAD_LETTERS, INSIGHT
from app.gateway.replay_routes import REPLAYS
from app.gateway.route import CURSOR, LIMIT, TEXT, TIME, Parameter, Route
from app.gateway.waiting import WAIT_SECONDS_MAX
from app.gateway.webhook_routes import WEBHOOKS

_ORDER_ID: Final = Parameter(
    "order_id",
    "path",
    "The order's id.",
    {"type": "string", "examples": ["ord_06dzpv7x2m8wq3k9n5t1r4c7j0"]},
    required=True,
)
_SKU: Final = Parameter(
    "sku", "path", "The SKU.", {"type": "string", "examples": ["tea-earl-grey"]}, required=True
)
_PREFER: Final = Parameter(
    "Prefer",
    "header",
    f"`wait=N`: answer when the order is confirmed or final, or after N ≤ {WAIT_SECONDS_MAX} seconds.",
    {"type": "string", "examples": ["wait=10"]},
)
_IF_NONE_MATCH: Final = Parameter("If-None-Match", "header", "Entity tags that the caller has.", TEXT)
_FILTERS: Final = (
    Parameter("customer_id", "query", "Only this customer's.", TEXT),
    Parameter("status", "query", "Only those in this status.", {"type": "string", "enum": list(Status)}),
    Parameter("created_after", "query", "Only those accepted later than this.", TIME),
    Parameter("created_before", "query", "Only those accepted earlier than this.", TIME),
)
_RESUMING: Final = (
    Parameter(
        "Last-Event-ID",
        "header",
        "The `id` of the last event that the caller has: the stream goes on behind it.",
        {"type": "string", "examples": [f"{examples.ORDER_ID}:3"]},
    ),
    Parameter("after", "query", "The same, for clients that cannot set headers.", TEXT),
)
_SIGNED: Final = tuple(
    Parameter(name, "header", about, TEXT, required=True)
    for name, about in (
        ("webhook-id", "The report's id, the same in every repetition."),
        ("webhook-timestamp", "When it was sent, in Unix seconds; at most five minutes ago."),
        ("webhook-signature", "`v1,` and the base64 HMAC-SHA256 of `{id}.{timestamp}.{body}`."),
    )
)

ORDERS: Final = (
    Route(
        method="POST", path="/v1/orders", run=orders.place_order, tag="orders", scope="orders:write",
        summary="Place an order",
        about="Answers 202 as soon as the order is durable; reserving, paying and shipping follow by "
        "themselves. With `Prefer: wait=N` it answers 200 once the order is confirmed or final. A 202 is the "
        "order as it was accepted, also when the wait is over: GET it for its present state.",
        takes=messages.OrderBody, keyed=True, admits_itself=True,
        gives={202: OrderDocument, 200: OrderDocument},
        says={
            202: "The order is durable: it will reach an end. Also the answer when the wait was over first, "
            "and to a repetition of a key.",
            200: "The order within the wait: `confirmed`, further on, or final (`rejected`, `cancelled`).",
        },
        shows={202: examples.ACCEPTED, 200: examples.CONFIRMED},
        sends={202: ("Location",), 200: ("Location", "ETag")},
        refuses=("price-changed", "sold-out"), parameters=(_PREFER,),
    ),
    Route(
        method="GET", path="/v1/orders", run=order_reads.list_orders, tag="orders", scope="orders:read",
        summary="List orders, newest first", gives={200: Page[OrderDocument]},
        parameters=(*_FILTERS, CURSOR, LIMIT),
    ),
    Route(
        method="GET", path="/v1/orders/{order_id}", run=order_reads.get_order, tag="orders",
        scope="orders:read", summary="Read an order", gives={200: OrderDocument, 304: None},
        sends={200: ("ETag",), 304: ("ETag",)},
        refuses=("not-found",),
        parameters=(_ORDER_ID, _IF_NONE_MATCH),
    ),
    Route(
        method="GET", path="/v1/orders/{order_id}/events", run=order_reads.list_events, tag="orders",
        scope="orders:read", summary="Read what happened to an order, or follow it",
        about="With `Accept: text/event-stream` (and nothing else) the answer is a stream of Server-Sent "
        "Events: the history, then each event as it happens, once, in order. It ends when the order is final "
        "and all is said, and after some minutes; come again with the last `id` as `Last-Event-ID`. "
        "`archived_through` (in a stream: of an event `events.archived`) is there when the first events of "
        "an old order are in an archive only, and says up to which sequence.",
        gives={200: EventPage, 204: None}, also_streams=True,
        says={204: "Nothing more will happen: the order is final and the caller has its last event."},
        refuses=("not-found",), parameters=(_ORDER_ID, CURSOR, LIMIT, *_RESUMING),
    ),
    Route(
        method="POST", path="/v1/orders/{order_id}/cancel", run=orders.cancel_order, tag="orders",
        scope="orders:write", summary="Cancel an order",
        about="Answers with the order, `cancelling` or `cancelled`. Cancelling again is nothing new.",
        takes=messages.CancelBody, body_optional=True, keyed=True, gives={200: OrderDocument},
        says={200: "The order, `cancelling` (what was done for it is being undone) or `cancelled` already."},
        shows={200: examples.CANCELLING},
        refuses=("not-found", "too-late", "not-cancellable"), parameters=(_ORDER_ID,),
    ),
)  # fmt: skip

LIVE: Final = (
    Route(
        method="GET", path="/v1/events", run=live_routes.follow_events, tag="events", scope="orders:read",
        summary="Follow everything that happens",
        about="A stream of Server-Sent Events, from now on, or from behind `Last-Event-ID`. Every event is "
        "sent at least once: those of the last seconds before the one you name are sent again, so tell them "
        "apart by their ids. It ends after some minutes; come again. Needs the scopes `orders:read`, "
        "`products:read` and `inventory:read`, and a key that is not bound to a customer.",
        gives={200: "text/event-stream"}, shows={200: examples.STREAM},
        refuses=("not-acceptable", "events-archived"),
        parameters=(
            Parameter(
                "type", "query", "Only events of these types, with commas between them.",
                {"type": "string", "examples": ["order.completed.v1,price.changed.v1"]},
            ),
            *_RESUMING,
        ),
    ),
)  # fmt: skip

CATALOGUE: Final = (
    Route(
        method="GET", path="/v1/products", run=products.list_products, tag="products",
        scope="products:read", summary="List products by SKU", gives={200: Page[messages.ProductDocument]},
        parameters=(CURSOR, LIMIT),
    ),
    Route(
        method="GET", path="/v1/products/{sku}", run=products.get_product, tag="products",
        scope="products:read", summary="Read a product", gives={200: messages.ProductDocument},
        refuses=("not-found",),
        parameters=(_SKU,),
    ),
    Route(
        method="PUT", path="/v1/products/{sku}", run=products.put_product, tag="products",
        scope="products:write", summary="Make or change a product",
        about="A new or changed price is an event; orders that were accepted keep the price they were given.",
        takes=messages.ProductBody, gives={200: messages.ProductDocument, 201: messages.ProductDocument},
        sends={201: ("Location",)},
        parameters=(_SKU,),
    ),
    Route(
        method="GET", path="/v1/inventory", run=inventory.list_stock, tag="inventory", scope="inventory:read",
        summary="List stock by SKU", gives={200: Page[messages.StockDocument]}, parameters=(CURSOR, LIMIT),
    ),
    Route(
        method="GET", path="/v1/inventory/{sku}", run=inventory.get_stock, tag="inventory",
        scope="inventory:read", summary="Read the stock of a SKU", gives={200: messages.StockDocument},
        refuses=("not-found",), parameters=(_SKU,),
    ),
    Route(
        method="POST", path="/v1/inventory/{sku}/adjustments", run=inventory.adjust_stock, tag="inventory",
        scope="inventory:write", summary="Adjust what is on hand",
        about="Receipts, losses and stocktaking. What is reserved cannot be taken away.",
        takes=messages.AdjustmentBody, keyed=True, gives={200: messages.StockDocument},
        refuses=("not-found", "stock-reserved", "stock-full"), parameters=(_SKU,),
    ),
    Route(
        method="POST", path="/v1/carrier-events", run=carrier.receive_event, tag="carrier",
        summary="Take a report of the carrier",
        about="Signed as Standard Webhooks say. 2xx means: do not repeat it.",
        takes=messages.CarrierEventBody, gives={200: messages.CarrierAnswer},
        refuses=("unauthenticated", "not-now"), parameters=_SIGNED,
    ),
)  # fmt: skip

OPERATIONS: Final = (
    Route(
        method="GET", path="/livez", run=health.live, tag="operations", is_probe=True,
        summary="Whether the process runs", gives={200: health.Health},
    ),
    Route(
        method="GET", path="/readyz", run=health.ready, tag="operations", is_probe=True,
        summary="Whether it can do its work", gives={200: health.Health, 503: health.Health},
    ),
    Route(
        method="GET", path="/startupz", run=health.started, tag="operations", is_probe=True,
        summary="Whether it has started", gives={200: health.Health},
    ),
    Route(
        method="GET", path="/metrics", run=health.show_metrics, tag="operations", is_probe=True,
        summary="Metrics for Prometheus", gives={200: "text/plain"},
    ),
    Route(
        method="GET", path="/openapi.json", run=pages.show_open_api, tag="documentation",
        summary="This document", gives={200: "application/json"},
    ),
    Route(
        method="GET", path="/asyncapi.json", run=pages.show_async_api, tag="documentation",
        summary="The events, as AsyncAPI", gives={200: "application/json"},
    ),
    Route(
        method="GET", path="/docs", run=pages.show_docs, tag="documentation",
        summary="This document, for people", gives={200: "text/html"},
    ),
    Route(
        method="GET", path="/problems/{slug}", run=pages.show_problem, tag="documentation",
        summary="What a type of problem means", gives={200: "text/html"}, refuses=("not-found",),
        parameters=(Parameter("slug", "path", "The problem's name.", TEXT, required=True),),
    ),
)  # fmt: skip

ROUTES: Final = (*ORDERS, *LIVE, *CATALOGUE, *INSIGHT, *DEAD_LETTERS, *REPLAYS, *WEBHOOKS, *OPERATIONS)
