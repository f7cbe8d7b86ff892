"""What went wrong with an attempt, in words for whoever owns the endpoint: no names of our program's parts.

Pure. What is said here is kept with the delivery and shown as its `last_error`.
"""

import errno
import socket
import ssl
from typing import Final

import h11

CHARACTERS_MAX: Final = 200
_UNREACHABLE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH})


class SaidError(OSError):
    """Something that went wrong; the message is in such words already."""


def words_of(error: Exception) -> str:
    """Why a receiver was not reached or not understood, at most `CHARACTERS_MAX` characters."""
    match error:
        case SaidError():
            words = str(error)
        case ssl.SSLError():
            words = f"TLS failed: {_of_tls(error)}"
        case socket.gaierror():
            is_passing = error.errno == socket.EAI_AGAIN
            words = f"the host's name {'cannot be looked up just now' if is_passing else 'is not known'}"
        case ConnectionRefusedError():
            words = "connection refused"
        case ConnectionError() | EOFError():
            words = "the connection was closed before an answer came"
        case OSError():
            words = _of_network(error)
        case h11.RemoteProtocolError():
            words = "the answer is not HTTP"
        case _:
            words = "it could not be sent"
    return words[:CHARACTERS_MAX]


def _of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    return (error.reason or "no handshake").replace("_", " ").lower()


def _of_network(error: OSError) -> str:
    if error.errno in _UNREACHABLE:
        return "there is no way to the host"
    if error.errno == errno.ETIMEDOUT:
        return "timed out while connecting"
    return f"the connection failed: {(error.strerror or 'for no known reason').lower()}"
