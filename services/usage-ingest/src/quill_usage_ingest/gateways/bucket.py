"""A bucket that speaks S3: objects read in pieces, never whole."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from quill_usage_ingest.domain.report_run import BrokenRun

PIECE_BYTES: Final = 256 * 1024
CONNECT_TIMEOUT_SECONDS: Final = 5
READ_TIMEOUT_SECONDS: Final = 30
_MISSING: Final = frozenset({"NoSuchKey", "NoSuchBucket", "404"})


class BucketAway(ConnectionError):
    """The bucket does not answer, or refuses; try again later."""


class S3Bucket:
    """All buckets of one account, while `opened`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def pieces(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """The bytes of an object, a quarter of a mebibyte at a time.

        Raises:
            BrokenRun: there is no such object.
            BucketAway: try again later.
        """
        try:
            answer = await self._client.get_object(Bucket=bucket, Key=key)
            async with answer["Body"] as body:
                while piece := await body.read(PIECE_BYTES):
                    yield piece
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _MISSING:
                raise BrokenRun("missing_object", f"{key}: is not in the bucket {bucket}") from error
            raise BucketAway(f"{key}: {error!r}") from error
        except (BotoCoreError, OSError, TimeoutError) as error:
            raise BucketAway(f"{key}: {error!r}") from error


@asynccontextmanager
async def opened(*, endpoint_url: str | None, region: str) -> AsyncIterator[S3Bucket]:
    """A client; keys come from the standard variables of every AWS client."""
    config = AioConfig(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        retries={"max_attempts": 2, "mode": "standard"},
        s3={"addressing_style": "path"},
    )
    async with get_session().create_client(
        "s3", region_name=region, endpoint_url=endpoint_url, config=config
    ) as client:
        yield S3Bucket(client)
