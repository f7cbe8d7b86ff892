"""The archive in a bucket that speaks S3: the same files, with the usual variables."""

from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from app.infra.archive import store as module
from app.infra.archive.archiving import fault_of
from app.infra.archive.store import ArchiveStore, NotArchivedError, UnreachableArchiveError
from tests.integration.archive.ages import Ages, day, holdfast

ACCESS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server with an empty bucket `archive`."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket="archive")
    yield url
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The bucket's address, and the environment in which it can be used."""
    for name, value in {**ACCESS, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    return "s3://archive/holdfast/events"


async def test_months_are_archived_and_dropped_from_it(ages: Ages, bucket: str, endpoint: str):
    """By the command, as an operator does it."""
    environment = {**ACCESS, "AWS_ENDPOINT_URL": endpoint}
    before = f"{day(-3):%Y-%m}"
    done = await holdfast(ages.url, "events", "archive", "--to", bucket, "--before", before, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    done = await holdfast(ages.url, "events", "drop", "--before", before, "--yes", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert await ages.recorded() == {day(-5): True, day(-4): True}


async def test_a_file_of_many_parts_comes_back(bucket: str, monkeypatch: pytest.MonkeyPatch):
    """It is there with its last byte, and not at all when it breaks off."""
    monkeypatch.setattr(module, "PART_BYTES", 5 * 2**20)
    store = ArchiveStore(bucket)

    async def parts(end: Exception | None = None):
        for number in range(4):
            yield bytes([number]) * 3 * 2**20
        if end is not None:
            raise end

    await store.write("whole", parts())
    whole = await store.read_small("whole")
    assert (len(whole), whole[-1]) == (12 * 2**20, 3)
    assert await store.read_range("whole", 3 * 2**20 - 1, 2) == b"\0\1"
    with pytest.raises(LookupError):
        await store.write("half", parts(LookupError()))
    with pytest.raises(NotArchivedError):
        await store.read_small("half")


@pytest.mark.full
async def test_a_bucket_that_does_not_answer_is_not_a_damaged_one(
    ages: Ages, bucket: str, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is dropped, and the reason is said."""
    (row,) = await ages.archive(-5, to=bucket)
    assert await fault_of(row) is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "cannot be reached" in (await fault_of(row) or "")
    with pytest.raises(UnreachableArchiveError):
        await ArchiveStore(bucket).read_small("whole")
