"""The routes of webhook endpoints and their deliveries."""

from typing import Final

from app.contracts.documents import Page
from app.domain.webhooks import DeliveryState
from app.gateway import webhook_endpoints as w
from app.gateway.route import CURSOR, LIMIT, TEXT, Parameter, Route
from app.gateway.webhook_messages import (
    DeliveryDocument,
    EndpointBody,
    EndpointChangeBody,
    EndpointDocument,
    RotationBody,
    SecretDocument,
)

_ENDPOINT_ID: Final = Parameter("endpoint_id", "path", "The endpoint's id.", TEXT, required=True)
_DELIVERY_ID: Final = Parameter("delivery_id", "path", "The delivery's id.", TEXT, required=True)
_SHOWN: Final = "The endpoint, and its secret: it is shown this once."

WEBHOOKS: Final = (
    Route(
        method="POST", path="/v1/webhook-endpoints", run=w.create_webhook_endpoint, tag="webhooks",
        scope="webhooks:write", summary="Have events sent to a URL",
        about="Each event that happens from now on is sent as a POST of its envelope, signed as Standard "
        "Webhooks say, at least once, not always in order; what is not answered by 2xx is sent again for "
        "three days. The key needs `orders:read`, and unless the endpoint is a customer's `products:read` "
        "and `inventory:read`. A key that is bound to a customer makes endpoints of that customer.",
        takes=EndpointBody, keyed=True, gives={201: SecretDocument}, says={201: _SHOWN},
        sends={201: ("Location",)}, refuses=("too-many-webhook-endpoints",),
    ),
    Route(
        method="GET", path="/v1/webhook-endpoints", run=w.list_webhook_endpoints, tag="webhooks",
        scope="webhooks:read", summary="List endpoints, the oldest first",
        gives={200: Page[EndpointDocument]}, says={200: "One page of endpoints."},
        parameters=(CURSOR, LIMIT),
    ),
    Route(
        method="GET", path="/v1/webhook-endpoints/{endpoint_id}", run=w.get_webhook_endpoint,
        tag="webhooks", scope="webhooks:read", summary="Read an endpoint",
        gives={200: EndpointDocument}, says={200: "The endpoint as it is now."},
        refuses=("not-found",), parameters=(_ENDPOINT_ID,),
    ),
    Route(
        method="PATCH", path="/v1/webhook-endpoints/{endpoint_id}", run=w.change_webhook_endpoint,
        tag="webhooks", scope="webhooks:write", summary="Change an endpoint, switch it off or on",
        about="While it is off nothing is sent, and what happens meanwhile is not sent later. One that "
        "answered 410 is off until it is switched on again here. Another URL, other types and switching on "
        "need the scopes that making it needs.",
        takes=EndpointChangeBody, gives={200: EndpointDocument}, says={200: "The endpoint as it is now."},
        refuses=("not-found",), parameters=(_ENDPOINT_ID,),
    ),
    Route(
        method="DELETE", path="/v1/webhook-endpoints/{endpoint_id}", run=w.delete_webhook_endpoint,
        tag="webhooks", scope="webhooks:write", summary="Delete an endpoint",
        about="Nothing is sent to it any more, not even what waits for another attempt.",
        gives={204: None}, says={204: "It is gone."}, refuses=("not-found",), parameters=(_ENDPOINT_ID,),
    ),
    Route(
        method="POST", path="/v1/webhook-endpoints/{endpoint_id}/rotate-secret",
        run=w.rotate_webhook_secret, tag="webhooks", scope="webhooks:write", summary="Give it a new secret",
        about="The old one signs beside the new one for a day, or as long as `overlap_s` says: "
        "`webhook-signature` then holds two signatures with a space between. The key needs the scopes that "
        "making an endpoint needs.",
        takes=RotationBody, body_optional=True, keyed=True, gives={200: SecretDocument}, says={200: _SHOWN},
        refuses=("not-found",), parameters=(_ENDPOINT_ID,),
    ),
    Route(
        method="POST", path="/v1/webhook-endpoints/{endpoint_id}/test", run=w.send_test_webhook,
        tag="webhooks", scope="webhooks:write", summary="Send a test",
        about="An envelope of the type `webhook.test.v1` without data, whatever types the endpoint takes; "
        "signed, tried again and in the log like any other.",
        keyed=True, gives={202: DeliveryDocument}, says={202: "The delivery, `pending`."},
        refuses=("not-found", "webhook-endpoint-disabled"), parameters=(_ENDPOINT_ID,),
    ),
    Route(
        method="GET", path="/v1/webhook-endpoints/{endpoint_id}/deliveries", run=w.list_webhook_deliveries,
        tag="webhooks", scope="webhooks:read", summary="List what was sent to an endpoint, newest first",
        about="For thirty days; what waits for another attempt is among it.",
        gives={200: Page[DeliveryDocument]}, says={200: "One page of deliveries."}, refuses=("not-found",),
        parameters=(
            _ENDPOINT_ID,
            Parameter(
                "state", "query", "Only those in this state.",
                {"type": "string", "enum": list(DeliveryState)},
            ),
            CURSOR, LIMIT,
        ),
    ),
    Route(
        method="POST", path="/v1/webhook-endpoints/{endpoint_id}/deliveries/{delivery_id}/redeliver",
        run=w.redeliver_webhook, tag="webhooks", scope="webhooks:write", summary="Send a delivery once more",
        about="At once, then by the usual schedule, under the same `webhook-id`; whatever became of it. The "
        "key needs the scopes that making the endpoint needs.",
        keyed=True, gives={202: DeliveryDocument}, says={202: "The delivery, `pending` again."},
        refuses=("not-found", "webhook-endpoint-disabled", "webhook-event-archived"),
        parameters=(_ENDPOINT_ID, _DELIVERY_ID),
    ),
)  # fmt: skip
