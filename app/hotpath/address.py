"""`Address`: where a server is and how to get in, read from a URL.

`redis://[user][:password]@host[:port][/db]`, `rediss://` for TLS, `unix://[user][:password]@/path[?db=n]`.
TLS files are query parameters, named as redis-py names them: `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`,
`ssl_check_hostname=false`.
"""

import ssl
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

PORT: Final = 6379


@dataclass(frozen=True)
class Address:
    """A server's address. `path` is set for unix sockets, `host` and `port` otherwise."""

    host: str = "127.0.0.1"
    port: int = PORT
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, url: str, db: int | None = None) -> "Address":
        """Read a URL; `db` overrides its database number. Raises ValueError, which never names a secret."""
        parts = urlsplit(url)
        if parts.scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("a Redis URL starts with redis://, rediss:// or unix://")
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        is_unix = parts.scheme == "unix"
        written = options.get("db", "0") if is_unix else parts.path.strip("/") or options.get("db", "0")
        if not written.isdigit():
            raise ValueError("the database of a Redis URL is a number")
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or PORT,
            path=unquote(parts.path) if is_unix else None,
            db=int(written) if db is None else db,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            tls=_tls(options) if parts.scheme == "rediss" else None,
        )

    def __str__(self) -> str:
        """The address without its secrets."""
        where = f"unix://{self.path}" if self.path else f"{self.host}:{self.port}"
        return f"{where}/{self.db}"


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if options.get("ssl_check_hostname", "true").lower() in {"false", "0", "no"}:
        context.check_hostname = False
    if "ssl_certfile" in options:
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context
