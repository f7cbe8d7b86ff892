"""Which servers the tests run against is said clearly, or refused clearly."""

import re
from pathlib import Path

import pytest

from tests import stack_external
from tests.stack import STACK, chosen

ROOT = Path(__file__).parents[2]
ADDRESSES = {
    stack_external.DATABASE_URL: "postgresql://h/postgres",
    stack_external.REDIS_URL: "redis://one, redis://two:6380/3,redis://one:6379/2",
    stack_external.TEMPORAL_ADDRESS: "h:7233",
}


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """External servers, among them two Redis."""
    for name, value in ADDRESSES.items():
        monkeypatch.setenv(name, value)


def test_containers_are_of_the_images_that_the_manifests_pin():
    """One version everywhere; image/test_servers.sh reads them in the same way."""
    text = (ROOT / "tests/stack_containers.py").read_text("utf-8")
    pinned = set(re.findall(r'^\w+_IMAGE = "(.+)"$', text, re.MULTILINE))
    overlay = (ROOT / "manifests/overlays/dev").glob("*.yaml")
    used = {image for file in overlay for image in re.findall(r"image: (\S+:\S+)", file.read_text("utf-8"))}
    assert pinned == used


@pytest.mark.parametrize("given", ["", "embedded", "containers", "external"])
def test_a_stack_is_one_of_three(given: str, monkeypatch: pytest.MonkeyPatch):
    """The embedded one, unless another is named."""
    monkeypatch.setenv(STACK, given)
    assert chosen() == (given or "embedded")


def test_a_misspelt_stack_is_refused(monkeypatch: pytest.MonkeyPatch):
    """Whoever misspelt it is told what there is."""
    monkeypatch.setenv(STACK, "container")
    with pytest.raises(pytest.UsageError, match="embedded, containers, external, not 'container'"):
        chosen()


@pytest.mark.parametrize("name", ADDRESSES)
def test_an_external_server_without_an_address_is_refused(addresses, name: str, monkeypatch):
    """By the name of the variable."""
    monkeypatch.delenv(name)
    with pytest.raises(pytest.UsageError, match=f"{name} is not set"):
        stack_external.refuse_incomplete(1)


def test_each_process_needs_a_redis_server_and_not_a_database_of_one(addresses):
    """Flushes, settings and channels know no databases."""
    stack_external.refuse_incomplete(2)
    with pytest.raises(pytest.UsageError, match="names 2 servers for 3 test processes"):
        stack_external.refuse_incomplete(3)
