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
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # its message may hold a piece of the password
            raise ValueError(
                "the Redis URL cannot be read: its port is no number, or a user or password needs %-encoding"
            ) from None
        if parts.scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("a Redis URL starts with redis://, rediss:// or unix://")
        is_unix = parts.scheme == "unix"
        if is_unix and not parts.path.startswith("/"):
            raise ValueError("a Redis URL of a unix socket is unix:///the/socket/s/path")
        if parts.fragment:
            raise ValueError("a # in a Redis URL is written %23")
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        written = options.get("db", "0") if is_unix else parts.path.strip("/") or options.get("db", "0")
        if not (written.isascii() and written.isdecimal()):
            raise ValueError("the database of a Redis URL is a number")
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=port or PORT,
            path=unquote(parts.path) if is_unix else None,
            db=int(written) if db is None else db,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            tls=_tls(options) if parts.scheme == "rediss" else None,
        )

    def __str__(self) -> str:
        """The address without its secrets."""
        if self.path is not None:
            return f"unix://{self.path}?db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{self.db}"


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        if "ssl_certfile" in options:
            context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    except OSError as error:  # SSLError too
        raise ValueError(f"the TLS files of the Redis URL cannot be used: {error}") from error
    if options.get("ssl_check_hostname", "true").lower() in {"false", "0", "no"}:
        context.check_hostname = False
    return context
