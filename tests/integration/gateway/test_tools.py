"""`holdfast keys` and `holdfast seed`, as commands, on a real database."""

import asyncio
import json
import os
import re
import sys
import time

import pytest

from app.dev.seed import SEEDS, seed
from app.infra.postgres.api_keys import SCOPES
from tests.busy import BUSY_S
from tests.integration.gateway.process import ROOT
from tests.integration.gateway.served import Gateway, problem


async def holdfast(database_url: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run a command; exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", *arguments),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": database_url, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_a_key_is_made_used_listed_and_revoked(gateway: Gateway, database_url: str):
    """It is printed once; the list never shows it; revoked, it opens nothing."""
    make = ("keys", "create", "--name", "shop", "--customer", "cust-9", "--json")
    code, output, _ = await holdfast(database_url, *make, ENVIRONMENT="test")
    made = json.loads(output)
    assert code == 0
    assert re.fullmatch(r"hf_test_[A-Za-z0-9]{43}", made["key"])
    assert made["customer_id"] == "cust-9"
    headers = {"Authorization": f"Bearer {made['key']}"}
    own = await gateway.post("/v1/orders", gateway.order(customer_id="cust-9"), headers=headers)
    assert own.status_code == 202
    problem(await gateway.client.get("/v1/inventory", headers=headers), 403, "forbidden")
    code, output, _ = await holdfast(database_url, "keys", "list")
    assert (code, made["id"] in output, made["key"] in output) == (0, True, False)
    assert (await holdfast(database_url, "keys", "revoke", made["id"]))[0] == 0
    said = f"holdfast keys: there is no open key {made['id']}\n"
    assert await holdfast(database_url, "keys", "revoke", made["id"]) == (1, "", said)
    _, output, _ = await holdfast(database_url, "keys", "list", "--json")
    assert next(key for key in json.loads(output) if key["id"] == made["id"])["revoked_at"]


async def test_a_key_may_have_a_limit_of_its_own(database_url: str):
    """It is stored with the key and shown in the list; other keys have none."""
    made = ("keys", "create", "--json", "--name")
    _, output, _ = await holdfast(database_url, *made, "crawler", "--rate", "5")
    assert json.loads(output)["rate_limit_per_s"] == 5
    await holdfast(database_url, *made, "shop")
    _, output, _ = await holdfast(database_url, "keys", "list", "--json")
    assert {key["name"]: key["rate_limit_per_s"] for key in json.loads(output)} == {
        "crawler": 5,
        "shop": None,
    }
    _, output, _ = await holdfast(database_url, "keys", "list")
    assert output.count("rate=5/s") == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["keys"], 64),
        (["keys", "create"], 64),
        (["keys", "create", "--name", "x", "--scopes", "orders:all"], 64),
        (["keys", "create", "--name", "x", "--customer", "a b"], 64),
        (["keys", "create", "--name", "x\n"], 64),
        (["keys", "create", "--name", "x", "--rate", "0"], 64),
        (["keys", "create", "--name", "x", "--rate", "1000001"], 64),
        (["migrate", "--nonsense"], 64),
        (["seed", "--nonsense"], 64),
        (["keys", "--help"], 0),
        (["seed", "--help"], 0),
        (["keys", "list"], 69),
        (["seed"], 69),
    ],
)
async def test_commands_say_what_is_wrong(arguments: list[str], code: int):
    """64 for wrong usage, 69 where PostgreSQL is not there, never a stack trace."""
    found, _, errors = await holdfast("postgresql://nobody:secret@127.0.0.1:1/none", *arguments)
    assert found == code
    assert errors.count("\n") == (1 if code else 0)
    assert "Traceback" not in errors
    assert "secret" not in errors


@pytest.mark.parametrize("arguments", [["keys"], ["keys", "create"]])
async def test_the_help_of_keys_names_every_option(arguments: list[str]):
    """What a key can be bound to is found without reading the manual."""
    _, shown, _ = await holdfast("postgresql://127.0.0.1:1/none", *arguments, "--help")
    assert {"--name", "--scopes", "--customer", "--json", *SCOPES} <= set(re.findall(r"[\w:-]+", shown))


async def test_seeding_again_or_twice_at_once_changes_nothing(database_url: str):
    """Only what is missing is made, and quickly."""
    await asyncio.gather(*(seed(database_url, "hf_dev_x") for _ in range(3)))
    started = time.monotonic()
    assert await seed(database_url, "hf_dev_x") == []
    assert time.monotonic() - started < 1 + BUSY_S
    import asyncpg

    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM products") == len(SEEDS)
        assert await connection.fetchval("SELECT count(*) FROM api_keys") == 1
        shelves = sum(bool(wanted.east) + bool(wanted.west) for wanted in SEEDS)
        kinds = await connection.fetch("SELECT type, count(*) AS n FROM events GROUP BY type")
        assert {row["type"]: row["n"] for row in kinds} == {
            "price.changed.v1": len(SEEDS),
            "inventory.adjusted.v1": shelves,
        }
        pieces = await connection.fetchval("SELECT sum(on_hand) FROM stock")
        assert pieces == sum(wanted.east + wanted.west for wanted in SEEDS)
    finally:
        await connection.close()


async def test_the_seeded_key_is_stored_for_the_environments_variable(database_url: str):
    """The supervisor hands the key over in HOLDFAST_DEV_API_KEY."""
    code, output, _ = await holdfast(database_url, "seed", HOLDFAST_DEV_API_KEY="hf_dev_from_outside")
    assert (code, "development API key" in output, "hf_dev_from_outside" in output) == (0, True, False)
