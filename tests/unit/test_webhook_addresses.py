"""Where webhooks may go: the public internet, and nothing that is ours."""

import pytest

from app.infra.webhooks.addresses import ForbiddenError, addresses_of, is_public, target_of

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.15.255.255",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "169.253.1.1",
    "192.0.1.1",
    "198.17.255.255",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]
NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fec0::1",
    "ff02::1",
    "not an address",
    "",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_public_internet_is_one(address: str):
    """Webhooks may go there."""
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_no_other_address_is(address: str):
    """This host, its neighbours, metadata services, groups, and what IPv6 wraps around all of these."""
    assert not is_public(address)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.com/", "https"),
        ("ftp://example.com/", "https"),
        ("file:///etc/passwd", "https"),
        ("example.com", "https"),
        ("//example.com/", "https"),
        ("https://user:secret@example.com/", "user"),
        ("https://user@example.com/", "user"),
        ("https://example.com@10.0.0.1/", "user"),
        ("https://example.com/#part", "fragment"),
        ("https://", "host"),
        ("https:///path", "host"),
        ("https://ex ample.com/", "printable"),
        ("https://example.com/\n", "printable"),
        ("https://example.com\\@10.0.0.1/", "printable"),
        ("https://bücher.example/", "printable"),
        ("https://" + "a" * 2048, "printable"),
        ("https://exa$mple.com/", "host"),
        ("https://a..example.com/", "host"),
        ("https://.example.com/", "host"),
        ("https://.../", "host"),
        ("https://" + "a" * 64 + ".example.com/", "host"),
        ("https://" + "a." * 127 + "a/", "host"),
        ("https://example.com:22/", "port"),
        ("https://example.com:80/", "port"),
        ("https://example.com:0/", "port"),
        ("https://example.com:65536/", "URL"),
        ("https://example.com:x/", "URL"),
        ("https://[::1", "URL"),
        ("https://127.0.0.1/", "public"),
        ("https://169.254.169.254/latest/meta-data", "public"),
        ("https://[::1]/", "public"),
        ("https://[::ffff:10.0.0.1]:8443/", "public"),
        ("https://[fe80::1%25eth0]/", "public"),
    ],
)
def test_a_url_that_leads_elsewhere_is_refused_at_once(url: str, said: str):
    """Before anything is resolved."""
    with pytest.raises(ForbiddenError, match=said):
        target_of(url, private_allowed=False)


def test_a_right_url_is_taken_apart():
    """What to connect to, what to say there."""
    target = target_of("https://hooks.example.com:8443/in/box?shop=1", private_allowed=False)
    assert (target.is_secure, target.host, target.port) == (True, "hooks.example.com", 8443)
    assert (target.authority, target.path) == ("hooks.example.com:8443", "/in/box?shop=1")
    assert target_of("https://8.8.8.8", private_allowed=False).path == "/"
    assert target_of("https://[2606:4700:4700::1111]/", private_allowed=False).host == "2606:4700:4700::1111"


def test_in_development_anything_goes_but_nonsense():
    """A receiver on the developer's own machine, without TLS."""
    assert target_of("http://127.0.0.1:9000/x", private_allowed=True).port == 9000
    assert target_of("http://localhost/", private_allowed=True).port == 80
    for url in ("ftp://localhost/", "http://user@localhost/", "http://localhost:0/"):
        with pytest.raises(ForbiddenError):
            target_of(url, private_allowed=True)


@pytest.mark.parametrize("found", [["10.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["8.8.8.8", "::1"]])
async def test_a_name_with_any_address_of_ours_is_refused(found: list[str]):
    """One public address among them excuses nothing."""
    target = target_of("https://example.com/", private_allowed=False)

    async def resolve(host: str, port: int) -> list[str]:
        assert (host, port) == ("example.com", 443)
        return found

    with pytest.raises(ForbiddenError):
        await addresses_of(target, resolve, private_allowed=False)
    assert await addresses_of(target, resolve, private_allowed=True) == found
