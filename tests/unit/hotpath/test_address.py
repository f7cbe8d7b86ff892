"""Where a server is, as URLs say it; what they must not give away."""

import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.hotpath.address import Address

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", Address()),
        ("redis://example.net", Address("example.net")),
        ("redis://example.net:7000/5", Address("example.net", 7000, db=5)),
        ("redis://[::1]:7000", Address("::1", 7000)),
        ("redis://:p%2Fw@h", Address("h", password="p/w")),
        ("redis://user:p%40w@h/2", Address("h", db=2, username="user", password="p@w")),
        ("redis://h?db=3", Address("h", db=3)),
        ("redis://h/4?db=3", Address("h", db=4)),
        ("unix:///run/valkey.sock", Address(path="/run/valkey.sock")),
        ("unix://u:pw@/run/my%20v?db=7", Address(path="/run/my v", db=7, username="u", password="pw")),
    ],
)
def test_urls(url: str, address: Address):
    """Every part has its place; what is left out has its default."""
    assert Address.parse(url) == address


def test_a_database_given_beside_the_url_wins():
    """As REDIS_DB does."""
    assert Address.parse("redis://h/2", db=5).db == 5
    assert Address.parse("redis://h/2", db=0).db == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "localhost:6379",
        "",
        "redis://h/x",
        "redis://h/-1",
        "redis://h/²",
        "redis://h/1/2",
        "redis://h:port",
        "redis://h:99999",
        f"redis://:{SECRET}/x@h",
        f"redis://:{SECRET}#x@h",
        f"redis://user:{SECRET}?x@h",
        f"redis://user:{SECRET}@[::1",
        f"redis://user:{SECRET}℀@h",
        f"redis://user:{SECRET}@h/x",
        f"rediss://user:{SECRET}@h?ssl_ca_certs=/none",
        "unix://relative",
    ],
)
def test_what_is_no_address_is_refused_without_a_secret(url: str):
    """A password that was not encoded breaks the URL, and the message does not show a piece of it."""
    with pytest.raises(ValueError) as caught:
        Address.parse(url)
    assert SECRET not in f"{caught.value!r}"
    assert caught.value.__context__ is None or SECRET not in str(caught.value.__cause__)
    assert len(str(caught.value).splitlines()) == 1


@given(st.text())
def test_no_text_of_an_address_holds_its_password(password: str):
    """Whoever prints it by accident prints nothing."""
    address = Address("h", username="u", password=f"{SECRET}{password}")
    assert SECRET not in f"{address} {address!r}"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (Address("h", 7000, db=2), "h:7000/2"),
        (Address("::1"), "[::1]:6379/0"),
        (Address(path="/run/v.sock", db=1), "unix:///run/v.sock?db=1"),
    ],
)
def test_an_address_is_shown_as_operators_know_it(address: Address, text: str):
    """For logs."""
    assert str(address) == text


def test_tls():
    """`rediss` checks who the server is; options loosen and extend that."""
    files = Path(__file__).parents[2] / "integration" / "providers" / "tls"
    context = Address.parse(f"rediss://h?ssl_ca_certs={files / 'ca.pem'}").tls
    assert context is not None
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    mutual = f"ssl_certfile={files / 'cert.pem'}&ssl_keyfile={files / 'key.pem'}&ssl_check_hostname=false"
    context = Address.parse(f"rediss://h?{mutual}").tls
    assert context is not None
    assert not context.check_hostname
    assert Address.parse("redis://h").tls is None
