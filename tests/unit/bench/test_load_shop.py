"""What the benchmarks send is what clients may send; what they put in place is what the domain decides."""

import itertools

import msgspec

from app.domain.commands import PlaceOrder, WantedLine
from app.domain.errors import Refusal
from app.domain.ids import ORDER_ID
from app.domain.order import Status
from app.domain.place import place
from app.gateway.messages import OrderBody
from bench import load, placed, shop
from bench.references import bare


def some(count: int = 200) -> list[bytes]:
    """The first bodies of a shop, always the same."""
    return list(itertools.islice(shop.bodies(seed=1), count))


def test_bodies_are_orders_that_the_shop_takes() -> None:
    """Each passes the gateway's own decoder and the domain's rules, with the total that it expects."""
    catalogue = placed.Catalogue()
    for body in some():
        wanted = msgspec.json.decode(body, type=OrderBody)
        assert 1 <= len(wanted.lines) <= 3
        assert wanted.expected_total is not None
        lines = tuple(WantedLine(line.sku, line.quantity) for line in wanted.lines)
        for line in lines:
            assert catalogue[line.sku].price.amount > 0
        command = PlaceOrder(
            wanted.customer_id, wanted.currency, lines, wanted.payment_method, wanted.expected_total.amount
        )
        order, _ = placed.accepted(wanted.customer_id, [(line.sku, line.quantity) for line in lines])
        answer = place(command, order.id, catalogue, "c", order.created_at)
        assert not isinstance(answer, Refusal), answer
        assert answer[0].total == order.total


def test_the_bare_server_reads_the_same_bodies() -> None:
    """Its struct holds all that a body says."""
    for body in some():
        decoded = msgspec.json.decode(body, type=bare.Order)
        assert msgspec.json.decode(msgspec.json.encode(decoded)) == msgspec.json.decode(body)


def test_customers_and_keys_are_new_in_every_request() -> None:
    """Nothing is replayed by accident, not even by two generators at once."""
    requests = [next(orders) for orders in [shop.orders("key"), shop.orders("key")] for _ in range(100)]
    heads = {request.partition(b"\r\n\r\n")[0] for request in requests}
    customers = {
        msgspec.json.decode(request.partition(b"\r\n\r\n")[2])["customer_id"] for request in requests
    }
    assert len(heads) == len(customers) == 200


def test_orders_alike_differ_in_their_names_only() -> None:
    """Their documents are of one length, so that every answer is as long as the reference's."""
    order = placed.completed("cust-0000000000", [("item-000001", 2), ("item-000002", 1)])
    copies = placed.alike(order, 10)
    assert {copy.status for copy in copies} == {Status.COMPLETED}
    assert len({copy.id for copy in copies}) == 10
    assert all(ORDER_ID.match(copy.id) for copy in copies)
    assert len({len(msgspec.json.encode(copy)) for copy in copies}) == 1


def test_an_answer_comes_through_the_environment_as_it_was() -> None:
    """The reference sends the very bytes, whatever they are."""
    answer = bare.Answer(200, [("etag", '"3"')], '{"name": "Zoë"}')
    assert bare.Answer.decoded(answer.encoded()) == answer


def test_a_prepared_post_says_how_long_it_is() -> None:
    """Head and body, one after the other."""
    lines = (
        *("POST /x HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"),
        *("Content-Length: 2", "A: b", "", "{}"),
    )
    assert load.post("/x", b"{}", {"A": "b"}) == "\r\n".join(lines).encode()
