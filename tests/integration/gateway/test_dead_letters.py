"""Dead letters over HTTP: looked at, tried again and left out, one by one or many at once."""

import pytest

from app.infra.postgres import dead_letters as module
from app.infra.postgres.dead_letters import DeadLetters, Failure
from tests.integration.gateway.served import Gateway, problem

FAILURE = Failure("failed", "KeyError('x')", "Traceback", None)


@pytest.fixture
async def letters(gateway: Gateway) -> list[str]:
    """Five letters of three orders and two groups; the last is of a type that nobody knew. Their ids."""
    store = DeadLetters(gateway.services.intake._database)
    orders = [(await gateway.place())["id"] for _ in range(3)]
    for group in ("projections", "analytics"):
        for order in orders[:2]:
            await store.add(group, order, FAILURE)
    await store.add("analytics", orders[2], Failure("unknown", "unknown type", "Traceback", None))
    return [item["id"] for item in await listed(gateway)]


async def listed(gateway: Gateway, **query: str) -> list[dict]:
    """Letters as they are listed, oldest first."""
    answer = await gateway.client.get("/v1/dead-letters", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def states(gateway: Gateway) -> list[str]:
    """The state of every letter that waits."""
    return [letter["state"] for letter in await listed(gateway)]


async def test_one_is_read_tried_again_and_left_out(gateway: Gateway, letters: list[str]):
    """Twice is the same as once; what is to be left out is not tried again."""
    one = await gateway.client.get(f"/v1/dead-letters/{letters[0]}")
    assert one.json() == (await listed(gateway))[0]
    for what, state in (("retry", "retrying"), ("discard", "discarding"), ("retry", "discarding")):
        for _ in range(2):
            answer = await gateway.client.post(f"/v1/dead-letters/{letters[0]}/{what}")
            assert (answer.status_code, answer.json()["state"]) == (202, state)
    assert await states(gateway) == ["discarding", *["open"] * 4]


@pytest.mark.parametrize("identity", ["99999", "x", "9" * 30, "%00", "-1"])
async def test_what_is_not_there_is_404(shared_gateway: Gateway, identity: str):
    """For each of the three."""
    client = shared_gateway.client
    problem(await client.get(f"/v1/dead-letters/{identity}"), 404, "not-found")
    for what in ("retry", "discard"):
        problem(await client.post(f"/v1/dead-letters/{identity}/{what}"), 404, "not-found")


CASES = [
    ({"all": True}, (0, 1, 2, 3, 4)),
    ({"group": "analytics"}, (2, 3, 4)),
    ({"group": "analytics", "kind": "failed"}, (2, 3)),
    ({"kind": "unknown"}, (4,)),
    ({"type": "order.accepted.v1", "group": "projections"}, (0, 1)),
    ({"type": "price.changed.v1"}, ()),
    ({"subject": "ord_"}, (0, 1, 2, 3, 4)),
    ({"subject": "ord%"}, ()),
    ({"first_after": "2026-01-01T00:00:00Z"}, (0, 1, 2, 3, 4)),
    ({"first_before": "2099-01-01T00:00:00+01:00"}, (0, 1, 2, 3, 4)),
    ({"first_before": "2026-01-01T00:00:00Z"}, ()),
]
"""What is asked for, and which of the letters that is."""


async def test_many_are_chosen_by_what_is_true_of_them(gateway: Gateway, letters: list[str]):
    """The list and the decision mean the same ones; deciding again is nothing new."""
    for chosen, which in CASES:
        await gateway.database.execute("UPDATE dead_letters SET state = 'open'")
        if "all" not in chosen:
            assert [letter["id"] for letter in await listed(gateway, **chosen)] == [letters[n] for n in which]
        for what, state in (("retry", "retrying"), ("retry", "retrying"), ("discard", "discarding")):
            answer = await gateway.client.post(f"/v1/dead-letters/{what}", json=chosen)
            assert answer.status_code == 202, answer.text
            ids = [letters[n] for n in which]
            assert answer.json() == {"count": len(which), "ids": ids, "next_cursor": None}, chosen
            assert await states(gateway) == [state if n in which else "open" for n in range(5)]


async def test_many_are_chosen_by_their_ids(gateway: Gateway, letters: list[str]):
    """Those that do not wait, or are nowhere, are not among the answer."""
    wanted = {"ids": [letters[1], letters[3], "123456"]}
    answer = await gateway.client.post("/v1/dead-letters/discard", json=wanted)
    assert answer.json()["ids"] == [letters[1], letters[3]]
    answer = await gateway.client.post("/v1/dead-letters/retry", json={"all": True})
    assert answer.json()["ids"] == [letters[0], letters[2], letters[4]]


async def test_one_request_decides_a_bounded_number(gateway: Gateway, letters: list[str], monkeypatch):
    """The rest follows with the cursor, and it ends."""
    monkeypatch.setattr(module, "DECIDED_MAX", 2)
    monkeypatch.setattr("app.gateway.dead_letters.DECIDED_MAX", 2)
    found, more = [], {}
    for _ in range(3):
        answer = await gateway.client.post("/v1/dead-letters/retry", json={"all": True, **more})
        found.append(answer.json()["ids"])
        more = {"cursor": answer.json()["next_cursor"]}
    assert found == [letters[:2], letters[2:4], letters[4:]]
    assert more == {"cursor": None}


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({}, 422, "invalid-request"),
        ({"all": False}, 422, "invalid-request"),
        ({"cursor": "nonsense", "all": True}, 400, "invalid-parameter"),
        ({"ids": []}, 422, "invalid-request"),
        ({"ids": ["1"] * 1001}, 422, "invalid-request"),
        ({"ids": [1]}, 422, "invalid-request"),
        ({"group": "a\0b"}, 422, "invalid-request"),
        ({"subject": "\0"}, 422, "invalid-request"),
        ({"first_after": "2026-01-01"}, 422, "invalid-request"),
        ({"first_after": "0001-01-01T00:00:00+14:00"}, 422, "invalid-request"),
        ({"first_before": "9999-12-31T23:59:59-14:00"}, 422, "invalid-request"),
        ({"everything": True}, 422, "invalid-request"),
    ],
)
async def test_never_all_by_mistake(shared_gateway: Gateway, body, status, slug):
    """Who says nothing, or nonsense, decides nothing."""
    for what in ("retry", "discard"):
        problem(await shared_gateway.client.post(f"/v1/dead-letters/{what}", json=body), status, slug)


@pytest.mark.parametrize("name", ["group", "type", "subject", "kind", "first_after", "state"])
async def test_a_list_is_asked_for_rightly_or_refused(shared_gateway: Gateway, name: str):
    """Not even NUL is told to the database."""
    answer = await shared_gateway.client.get(f"/v1/dead-letters?{name}=%00")
    problem(answer, 400, "invalid-parameter", f"/{name}")
