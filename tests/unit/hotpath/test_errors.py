"""One question decides what a caller does: may it have happened?"""

import pytest

from app.hotpath.errors import (
    ErrorReply,
    HotpathError,
    MayHaveHappened,
    NotNow,
    NotSent,
    Overloaded,
    Unreachable,
    error_reply,
)


def test_the_errors_answer_the_question():
    """What was not sent, what was, and what the server refused are three things."""
    assert issubclass(Unreachable, NotSent)
    assert issubclass(Overloaded, NotSent)
    kinds = NotSent, MayHaveHappened, ErrorReply
    assert all(issubclass(kind, HotpathError) for kind in kinds)
    assert not any(issubclass(one, other) for one in kinds for other in kinds if one is not other)


@pytest.mark.parametrize(
    ("message", "kind", "code"),
    [
        ("WRONGTYPE Operation against a key", ErrorReply, "WRONGTYPE"),
        ("ERR unknown command", ErrorReply, "ERR"),
        ("NOSCRIPT No matching script.", ErrorReply, "NOSCRIPT"),
        ("", ErrorReply, ""),
        ("ALONE", ErrorReply, "ALONE"),
        ("OOM command not allowed when used memory > 'maxmemory'.", NotNow, "OOM"),
        ("LOADING Redis is loading the dataset in memory", NotNow, "LOADING"),
        ("READONLY You can't write against a read only replica.", NotNow, "READONLY"),
        ("BUSY Redis is busy running a script.", NotNow, "BUSY"),
        ("MISCONF Errors writing to the AOF file", NotNow, "MISCONF"),
        ("MASTERDOWN Link with MASTER is down", NotNow, "MASTERDOWN"),
        ("CLUSTERDOWN Hash slot not served", NotNow, "CLUSTERDOWN"),
        ("BUSYGROUP Consumer Group name already exists", ErrorReply, "BUSYGROUP"),
    ],
)
def test_a_servers_error_is_its_first_word(message: str, kind: type[ErrorReply], code: str):
    """Some of them mean that another time will do."""
    error = error_reply(message)
    assert type(error) is kind
    assert (error.code, error.message, str(error)) == (code, message, message)
