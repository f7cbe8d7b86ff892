"""The AsyncAPI document says what is published: every event, where it goes, and true examples of it."""

import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.contracts import streams
from app.contracts.asyncapi import async_api
from app.contracts.event_examples import ENVELOPES
from app.domain.events import TYPES
from app.domain.upcasters import read
from tests.contract.test_openapi import references
from tests.integration.gateway.served import Gateway

DOCUMENT: dict[str, Any] = msgspec.json.decode(async_api())
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]


def resolved(reference: str) -> Any:
    """What a reference leads to."""
    found: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


KINDS = {"string": str, "integer": int, "object": dict, "array": list, "null": type(None)}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
KEYWORDS = {
    "$ref": lambda value, given: fits(value, resolved(given)),
    "allOf": lambda value, given: all(fits(value, part) for part in given),
    "anyOf": lambda value, given: any(fits(value, part) for part in given),
    "const": lambda value, given: value == given,
    "enum": lambda value, given: value in given,
    "minimum": lambda value, given: value >= given,
    "format": lambda value, given: given == "date-time" and TIME.fullmatch(value) is not None,
    "required": lambda value, given: set(given) <= set(value),
    "properties": lambda value, given: all(fits(value[x], given[x]) for x in value if x in given),
    "items": lambda value, given: all(fits(item, given) for item in value),
}
"""What our schemas say. Another keyword is a KeyError: whoever uses it first teaches it to this test."""


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is what a schema says."""
    said = {name: given for name, given in schema.items() if name not in {"title", "description", "default"}}
    kind = said.pop("type", None)
    if kind is not None and not isinstance(value, KINDS[kind]):
        return False
    return all(KEYWORDS[name](value, given) for name, given in said.items())


async def test_the_document_is_served_as_it_is_made(gateway: Gateway):
    """One document, AsyncAPI 3.0, for everybody, key or not."""
    answer = await gateway.client.get("/asyncapi.json", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT
    assert answer.json()["asyncapi"] == "3.0.0"


def test_every_event_of_the_domain_is_a_message_of_every_channel_and_no_other():
    """Whoever adds an event has it documented; whoever renames one, too."""
    assert {message["name"] for message in MESSAGES.values()} == set(TYPES.values())
    assert set(MESSAGES) == {cls.__name__ for cls in TYPES}
    expected = {name: {"$ref": f"#/components/messages/{name}"} for name in MESSAGES}
    for channel in DOCUMENT["channels"].values():
        assert channel["messages"] == expected
    for operation in DOCUMENT["operations"].values():
        assert len(operation["messages"]) == len(MESSAGES)


def test_channels_have_the_addresses_that_the_relay_writes_to():
    """Names with their parameters, each of which is explained."""
    channels = dict(DOCUMENT["channels"])
    assert channels.pop("webhooks")["address"] is None, "each endpoint has its own"
    addresses = {
        name: channel["address"].format(environment="prod", shard=3) for name, channel in channels.items()
    }
    assert addresses == {"events": streams.stream("prod", 3), "live": streams.live("prod")}
    for channel in channels.values():
        assert set(re.findall(r"{(\w+)}", channel["address"])) == set(channel["parameters"])
        assert all(parameter["description"] for parameter in channel["parameters"].values())


def test_every_reference_leads_somewhere():
    """Clients are generated from it."""
    found = references(DOCUMENT)
    assert len(found) > 100
    for reference in found:
        assert resolved(reference)


@pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.__name__)
def test_examples_are_what_is_published_and_what_the_schemas_say(cls: type):
    """An example reads back as the event, and its schema refuses what is another."""
    message = MESSAGES[cls.__name__]
    (example,) = message["examples"]
    payload = example["payload"]
    envelope = msgspec.json.decode(msgspec.json.encode(payload), type=streams.Envelope)
    assert msgspec.json.decode(msgspec.json.encode(ENVELOPES[cls])) == payload
    assert type(read(envelope.type, envelope.data)) is cls
    assert fits(payload, message["payload"])
    assert message["summary"].endswith(".")

    other = MESSAGES["PriceChanged" if cls.__name__ == "OrderAccepted" else "OrderAccepted"]
    assert not fits(payload, other["payload"])
    for name in payload:
        assert not fits({**payload, name: None}, message["payload"])
        assert not fits({x: y for x, y in payload.items() if x != name}, message["payload"])


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_tool_of_asyncapi_finds_nothing():
    """The official parser, with its rules and the official JSON Schema (`make asyncapi`)."""
    folder = Path(__file__).parent / "asyncapi"
    if subprocess.run(["sh", folder / "install.sh"], check=False).returncode:
        pytest.skip("the parser cannot be installed here")
    done = subprocess.run(["sh", folder / "check.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
