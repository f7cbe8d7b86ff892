"""What an operator is told about a refusal that no retry can mend."""

from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverter, DefaultPayloadConverter

from app.domain.errors import Refusal
from app.workers.activities.progress import final


def test_the_code_is_said_once():
    """As it was raised, and as a workflow gets it."""
    error = final(Refusal("not-captured", "the intent is voided"))
    failure, converter = Failure(), DefaultPayloadConverter()
    DefaultFailureConverter().to_failure(error, converter, failure)
    received = DefaultFailureConverter().from_failure(failure, converter)
    assert [str(error), str(received)] == ["not-captured: the intent is voided"] * 2
    assert error.non_retryable
