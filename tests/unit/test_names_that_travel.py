"""Names and messages that other processes rely on: Redis keys, envelopes, Temporal's names."""

import re

import hypothesis.strategies as st
import msgspec
from hypothesis import given

from app.contracts import admission, streams, temporal
from app.domain.events import Reason
from tests.unit.orders import ID

environments = st.sampled_from(["dev", "dev-2", "prod", "production"])
"""Some are the beginning of others."""


@given(environments, environments, st.integers(0, 255))
def test_every_key_belongs_to_one_environment(environment, other, shard):
    """Two environments on one Redis never meet."""

    def keys(name: str) -> set[str]:
        return {
            streams.stream(name, shard),
            streams.relay_fence(name, shard, 256),
            streams.order_document(name, ID),
            streams.hint_workflow_outbox(name),
            streams.hint_event_outbox(name),
            streams.hint_webhooks(name),
            streams.live(name),
            streams.environment_marker(name),
            admission.limit(name, "caller", "read"),
            admission.answers(name, "caller"),
            admission.gate(name, "counts"),
        }

    assert len(keys(environment)) == 11
    assert all(key.startswith(streams.prefix(environment)) for key in keys(environment))
    assert environment == other or not any(key.startswith(streams.prefix(other)) for key in keys(environment))
    assert environment == other or not keys(environment) & keys(other)


def test_what_belongs_to_an_order_lives_in_one_slot_of_a_cluster():
    """Its id is the hash tag."""
    assert re.findall(r"{(.+)}", streams.order_document("dev", ID)) == [ID]


@given(st.text(), st.integers(1, 256))
def test_a_subject_has_one_shard(subject, shards):
    """All of its events go one way, whoever computes it."""
    assert streams.shard_of(subject, shards) == streams.shard_of(subject, shards) < shards


def test_shards_do_not_change_between_releases():
    """Else the events of an open order would be on two streams."""
    assert [streams.shard_of(ID, n) for n in (1, 4, 16)] == [0, 1, 9]


def test_orders_are_spread_over_the_shards():
    """No shard carries much more than its part."""
    counts = [0] * 4
    for number in range(4000):
        counts[streams.shard_of(f"ord_{number:026d}", 4)] += 1
    assert min(counts) > 800


def test_an_envelope_is_a_cloud_event():
    """Specversion and content type are always said; what there is not is left out."""
    data = msgspec.Raw(b'{"type":"order.confirmed.v1"}')
    source = streams.source("dev")
    envelope = streams.Envelope(
        f"{ID}:2", "order.confirmed.v1", source, ID, "2026-01-01T00:00:00Z", 2, "cor_1", data
    )
    encoded = msgspec.json.decode(msgspec.json.encode(envelope))
    assert encoded == {
        "id": f"{ID}:2",
        "type": "order.confirmed.v1",
        "source": "/holdfast/dev",
        "subject": ID,
        "time": "2026-01-01T00:00:00Z",
        "sequence": 2,
        "correlationid": "cor_1",
        "data": {"type": "order.confirmed.v1"},
        "specversion": "1.0",
        "datacontenttype": "application/json",
    }


def test_temporals_names_are_the_contracts():
    """Operators and dashboards use them."""
    assert temporal.ORDER_WORKFLOW == "OrderWorkflow"
    assert temporal.workflow_id(ID) == f"order/{ID}"
    assert temporal.QUEUES == ("orders", "payments", "inventory", "shipping", "notifications")
    assert temporal.QUERY_STATUS == "status"
    assert set(temporal.ATTRIBUTES) == {"OrderId", "CustomerId", "OrderStatus", "WaitingOn", "CorrelationId"}


def test_messages_survive_their_way():
    """What one process writes another reads as the same."""
    messages = [
        temporal.OrderInput(ID, "cus_1", "cor_1"),
        temporal.Step(ID, "cor_1", Reason("out_of_stock", "None left.", skus=("cup",))),
        temporal.Progress("accepted", 3, 1550, (f"ful_{ID[4:]}_1",)),
        temporal.Waiting(ID, "cor_1", "payments"),
        temporal.Alert(ID, "cor_1", "capture_payment", "not-captured"),
        temporal.Delivered(f"ful_{ID[4:]}_1"),
        temporal.StatusAnswer("accepted", None, "payments"),
    ]
    for message in messages:
        assert msgspec.json.decode(msgspec.json.encode(message), type=type(message)) == message
