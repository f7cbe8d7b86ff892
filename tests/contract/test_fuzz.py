"""Whatever is sent, the answer is one that the document names: never a 5xx, never another shape."""

import json
import time
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.dev.sandbox.webhooks import sign
from app.gateway.examples import ORDER_ID, WEBHOOK_ENDPOINT_ID, example_of
from app.gateway.problems import Problem
from app.gateway.route import Route
from app.gateway.routes import CATALOGUE, ORDERS, ROUTES
from app.gateway.webhook_messages import EndpointBody
from tests.integration.gateway.served import SECRET, Gateway

EXAMPLES_PER_ROUTE = 80

NASTY = [
    "",
    "\0",
    "\r\n",
    "a:b",
    "*",
    "O'Hara",
    "\u202e",
    "é",
    "\ud800",
    "\ud7ff",
    "x" * 300,
    "ord_",
    "../..",
    "%00",
    "null",
]
TEXT = st.one_of(st.sampled_from(NASTY), st.text(max_size=20))
NUMBERS = st.one_of(
    st.sampled_from(
        [0, -1, 1, 2**31, 2**53, 2**63, 2**64, 2**70, 10**30, 1.0, -0.0, 1e308, 100_000, 100_001]
    ),
    st.integers(),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
HEADER_TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


def _seldom(draw: st.DrawFn) -> bool:
    """One time in eight; not 0, which Hypothesis likes best."""
    return draw(st.integers(0, 7)) == 5


@st.composite
def bent(draw: st.DrawFn, value: Any) -> Any:
    """A right body with something in it replaced, added or left out, or left as it is."""
    if _seldom(draw) or value is None:
        return draw(JSON)
    if isinstance(value, dict) and value:
        name = draw(st.sampled_from(sorted(value)))
        match draw(st.integers(0, 4)):
            case 0:
                return {key: item for key, item in value.items() if key != name}
            case 1:
                return {**value, draw(TEXT): draw(JSON)}
            case _:
                return {**value, name: draw(bent(value[name]))}
    if isinstance(value, list) and value:
        return [*value[1:], draw(bent(value[0]))]
    return draw(JSON)


def bodies(route: Route) -> st.SearchStrategy[bytes]:
    """Right bodies, bent ones, and bytes that are no JSON at all."""
    right = example_of(route.takes)
    dumped = st.one_of(st.just(right), bent(right), bent(right)).map(
        lambda value: json.dumps(value, ensure_ascii=True).encode()
    )
    return st.one_of(dumped, dumped, dumped, st.binary(max_size=40))


@st.composite
def requests(draw: st.DrawFn, route: Route) -> dict[str, Any]:
    """A request to a route, more or less as the document wants it."""
    path, query, headers = route.path, [], {}
    for parameter in route.parameters:
        name = parameter.name
        if parameter.place == "path":
            known = st.sampled_from([ORDER_ID, "tea-sample", "tea-earl-grey", "sold-out"])
            if name == "endpoint_id":
                known = st.just(WEBHOOK_ENDPOINT_ID)
            value = (draw(TEXT) if _seldom(draw) else draw(known)) or "x"
            value = "x" if value in {".", ".."} else value  # which clients take for another path
            path = path.replace("{" + name + "}", quote(value.encode("utf-8", "replace"), safe=""))
        elif parameter.place == "query" and draw(st.booleans()):
            right = {"limit": "3", "status": "accepted", "customer_id": "cust-1042"}.get(
                name, "2026-01-31T12:00:00Z"
            )
            query.append((name, (draw(TEXT) if _seldom(draw) else right).encode("utf-8", "replace")))
        elif parameter.place == "header" and name != "Prefer" and draw(st.booleans()):
            headers[name] = draw(HEADER_TEXT)
    if _seldom(draw):
        query.append((draw(st.text(max_size=5)).encode("utf-8", "replace"), b"1"))
    if route.keyed and not _seldom(draw):
        headers["Idempotency-Key"] = draw(st.one_of(HEADER_TEXT, st.sampled_from(["a", "b"])))
    content = None
    if route.takes:
        content = draw(bodies(route))
        types = ["application/json"] * 8 + ["text/plain", "application/json; charset=utf-16"]
        headers["Content-Type"] = draw(st.sampled_from(types))
    url = path + ("?" + urlencode(query) if query else "")
    return {"method": route.method, "url": url, "headers": headers, "content": content}


def check(route: Route, answer: httpx.Response) -> None:
    """The answer is one that the document names, and has the shape it gives for it."""
    status = answer.status_code
    assert answer.headers["x-request-id"]
    assert answer.headers["x-correlation-id"]
    bent = {404: "There is no such path.", 405: f"{route.method} cannot be done here."}
    if "{" in route.path and status in bent and answer.json()["detail"] == bent[status]:
        return  # the path was bent into another one
    assert status < 500, answer.text
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        found = msgspec.json.decode(answer.content, type=Problem)
        assert found.type.removeprefix("/problems/") in route.problems, found
        assert found.status == status
        return
    assert status in route.gives
    kind = route.gives[status]
    if kind is not None and not isinstance(kind, str):
        assert answer.headers["content-type"] == "application/json"
        assert msgspec.json.encode(msgspec.json.decode(answer.content, type=kind)) == answer.content


def signature(body: bytes) -> dict[str, str]:
    """What lets a report of the carrier in."""
    now = int(time.time())
    signed = sign(SECRET.encode(), "msg_1", now, body)
    return {"webhook-id": "msg_1", "webhook-timestamp": str(now), "webhook-signature": signed}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_every_answer_is_in_the_document(gateway: Gateway, route: Route):
    """Hundreds of right, bent and broken requests to every route."""
    sent: list[dict[str, Any]] = []

    @settings(
        max_examples=EXAMPLES_PER_ROUTE if route in (*ORDERS, *CATALOGUE) else 10,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests(route))
    def collect(request: dict[str, Any]) -> None:
        sent.append(request)

    collect()
    order = await gateway.place()
    endpoint = WEBHOOK_ENDPOINT_ID
    if "{endpoint_id}" in route.path:
        made = await gateway.post("/v1/webhook-endpoints", example_of(EndpointBody))
        endpoint = made.json()["endpoint"]["id"]
    for request in sent:
        request["url"] = request["url"].replace(ORDER_ID, order["id"]).replace(WEBHOOK_ENDPOINT_ID, endpoint)
        if route.path == "/v1/carrier-events":
            request["headers"] |= signature(request["content"])
        answer = await gateway.client.request(**request)
        try:
            check(route, answer)
        except AssertionError as error:
            raise AssertionError(f"{request} was answered {answer.status_code} {answer.text}") from error
