"""How mails leave: who logs in, what is encrypted, and how long anything may take."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from app.infra.mail import smtp
from app.infra.mail.smtp import MailRefused, SmtpAway, SmtpServer, connected
from tests.integration.consumer.sink import Sink

SENDER = "orders@shop.example"

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH")  # what the sink says of the test's own wish


def mail() -> EmailMessage:
    """Something to send."""
    message = EmailMessage()
    message["To"] = "ada@mail.example"
    message["Subject"] = "."
    message.set_content(".\n..\n.leading dots\n")
    return message


class Guarded(Sink):
    """A sink that wants a password, or a server that speaks TLS, or one that says nothing."""

    def __init__(self, context: ssl.SSLContext | None = None, *, from_the_start: bool = False) -> None:
        super().__init__()
        self.context = context
        self.from_the_start = from_the_start
        self.wants_password = False

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        context = self.context if self.from_the_start else None
        self._server = await loop.create_server(self._connection, "127.0.0.1", self.port, ssl=context)

    def _connection(self) -> SMTP:
        return SMTP(
            self,
            hostname="sink.test",
            loop=asyncio.get_running_loop(),
            tls_context=None if self.from_the_start else self.context,
            auth_require_tls=False,
            auth_required=self.wants_password,
            authenticator=self._knows,
        )

    @staticmethod
    def _knows(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        known = data == LoginPassword(b"shop@x", b"p:/?#@% word")
        return AuthResult(success=known, handled=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key for 127.0.0.1, trusted by nobody."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sink.test")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 77)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    ).public_bytes(Encoding.PEM)
    file = tmp_path_factory.mktemp("certificate") / "both.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + signed)
    file.with_suffix(".crt").write_bytes(signed)
    return file


@pytest.fixture
def context(certificate: Path) -> ssl.SSLContext:
    """What a server shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
async def guarded(request: pytest.FixtureRequest) -> AsyncIterator[Guarded]:
    """A server that listens."""
    sink = Guarded()
    await sink.start()
    yield sink
    await sink.stop()


async def deliver(url: str) -> None:
    """Send one mail."""
    async with connected(SmtpServer.parse(url), SENDER) as connection:
        await connection.send(mail())


async def test_a_password_with_any_signs_is_understood(guarded: Guarded):
    """Percent-encoded, as URLs have it."""
    guarded.wants_password = True
    await deliver(f"smtp://shop%40x:p%3A%2F%3F%23%40%25%20word@127.0.0.1:{guarded.port}")
    assert guarded.mails[0].get_content().splitlines() == [".", "..", ".leading dots"]


async def test_a_wrong_password_is_a_server_that_is_away(guarded: Guarded):
    """Mails wait until it is put right; what is said holds neither password nor user."""
    guarded.wants_password = True
    with pytest.raises(SmtpAway) as raised:
        await deliver(f"smtp://shop%40x:s3cret@127.0.0.1:{guarded.port}")
    assert "AuthenticationError 535" in str(raised.value)
    assert "s3cret" not in repr(raised.value)
    assert "shop" not in repr(raised.value)


async def test_without_starttls_nothing_is_said_in_the_clear(guarded: Guarded):
    """Who demands it gets it, or sends nothing."""
    with pytest.raises(SmtpAway):
        await deliver(f"smtp+starttls://127.0.0.1:{guarded.port}")
    assert guarded.mails == []


@pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])
async def test_a_certificate_is_checked(context, certificate: Path, monkeypatch, scheme: str):
    """One that nobody vouches for gets no mail; one that is trusted (SSL_CERT_FILE) does."""
    sink = Guarded(context, from_the_start=scheme == "smtps")
    await sink.start()
    try:
        with pytest.raises(SmtpAway, match=r"(?i)certificate"):
            await deliver(f"{scheme}://127.0.0.1:{sink.port}")
        assert sink.mails == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
        await deliver(f"{scheme}://127.0.0.1:{sink.port}")
        assert len(sink.mails) == 1
    finally:
        await sink.stop()


async def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch):
    """Every wait has its end."""
    monkeypatch.setattr(smtp, "CONNECT_DEADLINE_S", 0.2)
    server = await asyncio.start_server(lambda _reader, _writer: asyncio.sleep(0), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(60):
        with pytest.raises(SmtpAway):
            await deliver(f"smtp://127.0.0.1:{port}")
    server.close()


async def test_a_server_that_falls_silent_over_a_mail_is_not_waited_for(guarded: Guarded, monkeypatch):
    """It may have taken it: that is for the caller to know."""
    monkeypatch.setattr(smtp, "SEND_DEADLINE_S", 0.3)
    guarded.going_on.clear()
    async with asyncio.timeout(60):
        with pytest.raises(SmtpAway):
            await deliver(f"smtp://127.0.0.1:{guarded.port}")
    guarded.going_on.set()


@pytest.mark.parametrize(("answer", "is_final"), [("550 5.7.1 spam", True), ("451 4.3.0 later", False)])
async def test_what_a_server_says_to_a_mail_is_told_apart(guarded: Guarded, answer: str, is_final: bool):
    """And the connection goes on with the next one."""
    async with connected(SmtpServer.parse(guarded.url), SENDER) as connection:
        guarded.answers["DATA"] = answer
        with pytest.raises(MailRefused) as raised:
            await connection.send(mail())
        assert raised.value.is_final is is_final
        guarded.answers.clear()
        await connection.send(mail())
    assert len(guarded.mails) == 1


async def test_a_server_that_closes_is_away(guarded: Guarded):
    """421 is not about the mail."""
    guarded.answers["RCPT"] = "421 4.3.2 shutting down"
    with pytest.raises(SmtpAway, match="421"):
        await deliver(guarded.url)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://h", SmtpServer("h", 25, None, None)),
        ("smtp+starttls://u:p@h", SmtpServer("h", 587, "u", "p", starttls=True)),
        ("smtps://u@[::1]/", SmtpServer("::1", 465, "u", None, tls=True)),
    ],
)
async def test_a_url_says_where_and_how(url: str, server: SmtpServer):
    """With the port that is usual for it."""
    assert SmtpServer.parse(url) == server
