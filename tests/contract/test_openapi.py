"""The OpenAPI document says what is served: every route, every status, true examples, nothing dangling."""

from typing import Any

import msgspec
import pytest

from app.domain import events as e
from app.domain.webhooks import DeliveryState
from app.gateway.examples import EXAMPLES, example_of
from app.gateway.openapi import open_api
from app.gateway.problem_kinds import KINDS
from app.gateway.route import Route
from app.gateway.routes import ROUTES
from app.infra.postgres.api_keys import SCOPES
from tests.integration.gateway.served import Gateway

DOCUMENT: dict[str, Any] = msgspec.json.decode(open_api(ROUTES))
UNKEYED = {
    "/v1/carrier-events",
    *(f"/v1/replays/{{replay_id}}/{what}" for what in ("apply", "cancel")),
    *(f"/v1/dead-letters/{which}{what}" for which in ("", "{letter_id}/") for what in ("retry", "discard")),
}
"""What may be asked again without a key, because asking twice is the same as asking once."""
NAMED = [f"{route.method} {route.path}" for route in ROUTES]


def references(value: Any) -> list[str]:
    """Every $ref in the document."""
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for item in value.values() for found in references(item)]
    return [found for item in value for found in references(item)] if isinstance(value, list) else []


async def test_the_document_is_served_as_it_is_made(gateway: Gateway):
    """One document, OpenAPI 3.1, for everybody, key or not."""
    answer = await gateway.client.get("/openapi.json", headers={"Authorization": ""})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT
    assert answer.json()["openapi"].startswith("3.1.")


def test_it_names_every_route_and_no_other():
    """What the application routes is what the document shows, because both come from one table."""
    shown = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert shown == {(route.method, route.path) for route in ROUTES}
    assert len({route.run.__name__ for route in ROUTES}) == len(ROUTES)


def test_every_reference_leads_somewhere():
    """Clients are generated from it."""
    for reference in references(DOCUMENT):
        found: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        assert found


@pytest.mark.parametrize("route", ROUTES, ids=NAMED)
def test_every_operation_is_whole(route: Route):
    """Path parameters, the key, the scope and the problems are all said."""
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    declared = {(p["name"], p["in"]) for p in operation.get("parameters", ())}
    assert {name for name, place in declared if place == "path"} == {
        part[1:-1] for part in route.path.split("/") if part.startswith("{")
    }
    assert (("Idempotency-Key", "header") in declared) is route.keyed
    assert operation["security"] == ([{"apiKey": [route.scope]}] if route.scope else [])
    assert route.scope is None or route.scope in SCOPES
    assert route.keyed or route.method != "POST" or route.path in UNKEYED
    assert {int(status) for status in operation["responses"]} >= set(route.gives)
    for status, response in operation["responses"].items():
        assert response["description"]
        if int(status) >= 400 and not route.is_probe:
            assert list(response["content"]) == ["application/problem+json"]


@pytest.mark.parametrize("kind", EXAMPLES, ids=repr)
def test_examples_are_what_the_code_reads_and_writes(kind: Any):
    """An example that the API would refuse teaches the wrong thing."""
    shown = msgspec.json.encode(example_of(kind))
    assert msgspec.json.decode(shown, type=kind, strict=True)


def test_the_data_of_every_event_of_an_order_is_described():
    """A reader of the history learns its shapes here, money with its currency among them."""
    schemas = DOCUMENT["components"]["schemas"]
    envelope = schemas["Envelope"]["properties"]
    kinds = {e.TYPES[kind]: kind.__name__ for kind in e.OrderEvent.__args__}
    mapping = envelope["data"]["discriminator"]["mapping"]
    assert mapping == {kind: f"#/components/schemas/{name}" for kind, name in kinds.items()}
    assert set(envelope["type"]["enum"]) == set(kinds)
    money = {"$ref": "#/components/schemas/Money"}
    assert schemas["OrderAccepted"]["properties"]["total"] == money
    assert schemas["PaymentCaptured"]["properties"]["amount"] == money


def test_a_delivery_says_what_each_state_means_and_when_it_is_sent():
    """Who reads the log of an endpoint knows whether to wait, or to have it sent again."""
    shown = DOCUMENT["components"]["schemas"]["DeliveryDocument"]["properties"]
    assert shown["state"]["enum"] == list(DeliveryState)
    assert all(f"`{state}`: " in shown["state"]["description"] for state in DeliveryState)
    for time in ("due_at", "next_attempt_at"):
        assert shown[time]["description"].endswith(" Null once it has ended.")


@pytest.mark.parametrize(
    ("path", "status", "shown", "headers"),
    [
        ("/v1/orders", "202", "accepted", {"Location", "Preference-Applied", "Idempotent-Replayed"}),
        ("/v1/orders", "200", "confirmed", {"Location", "ETag", "Preference-Applied", "Idempotent-Replayed"}),
        ("/v1/orders/{order_id}/cancel", "200", "cancelling", {"Idempotent-Replayed"}),
    ],
)
def test_answers_about_orders_show_what_they_mean(path: str, status: str, shown: str, headers: set[str]):
    """The example has the status that the answer is given for, and every header is named."""
    answer = DOCUMENT["paths"][path]["post"]["responses"][status]
    example = answer["content"]["application/json"]["example"]
    assert example["status"] == shown
    always = {"X-Request-ID", "X-Correlation-ID", "RateLimit-Policy", "RateLimit"}
    assert set(answer["headers"]) == always | headers
    assert always | {"Retry-After"} <= set(DOCUMENT["paths"][path]["post"]["responses"]["429"]["headers"])
    if shown == "confirmed":
        assert example["version"] == 5
        assert example["payment"]["authorized"] == example["totals"]["total"]
        assert [parcel["status"] for parcel in example["fulfilments"]] == ["booked"]


def test_every_problem_can_happen():
    """A problem that no route answers is a leftover (the router's own two are everywhere)."""
    answered = {slug for route in ROUTES for slug in route.problems}
    assert {kind.slug for kind in KINDS} - answered == {"method-not-allowed"}
