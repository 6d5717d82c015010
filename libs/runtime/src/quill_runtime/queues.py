"""A queue that speaks SQS: receive, delete what is safe elsewhere, send.

Imported only where a queue is configured: the client library takes a while to load.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

RECEIVE_MAX: Final = 10
"""The most that SQS hands out at once."""
WAIT_SECONDS: Final = 10
CONNECT_TIMEOUT_SECONDS: Final = 5
READ_TIMEOUT_SECONDS: Final = 30
"""Longer than a long poll."""
SEND_READ_TIMEOUT_SECONDS: Final = 10
FIFO: Final = ".fifo"
"""How the address of a queue ends that keeps the order of each group."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_REFUSALS: Final = frozenset({"InvalidMessageContents", "InvalidParameterValue", "InvalidAttributeValue"})


class QueueAway(ConnectionError):
    """The queue does not answer, or refuses; nothing was lost, what was received comes again."""


class MessageRefused(ValueError):
    """The queue answers and will never take this message as it is: too large, or characters that it does not know."""


@dataclass(frozen=True, slots=True)
class QueueMessage:
    """One message; ``sent_at`` is when the queue took it and stays the same when it is handed out again."""

    message_id: str
    receipt: str
    body: str
    sent_at: datetime
    attributes: dict[str, str]


class SqsQueue:
    """One queue, while `opened`."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    async def receive(self) -> list[QueueMessage]:
        """Wait up to ten seconds for up to ten messages.

        Raises:
            QueueAway: try again later.
        """
        try:
            answer = await self._client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=RECEIVE_MAX,
                WaitTimeSeconds=WAIT_SECONDS,
                MessageSystemAttributeNames=["SentTimestamp"],
                MessageAttributeNames=["All"],
            )
        except (BotoCoreError, ClientError, OSError) as error:
            raise QueueAway(f"receive: {error!r}") from error
        return [_message(each) for each in answer.get("Messages", [])]

    async def delete(self, messages: Sequence[QueueMessage]) -> None:
        """Tell the queue to forget these. What it does not forget comes again, which is harmless (L1).

        Raises:
            QueueAway: try again later, or let them come again.
        """
        entries = [{"Id": str(n), "ReceiptHandle": message.receipt} for n, message in enumerate(messages)]
        try:
            await self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
        except (BotoCoreError, ClientError, OSError) as error:
            raise QueueAway(f"delete: {error!r}") from error

    async def send(self, body: str, *, attributes: Mapping[str, str], group: str, message_key: str) -> str:
        """Hand over one message; returns the id that the queue gave it, which is its word that it has it.

        A queue that keeps order keeps that of a ``group``, and forgets repeats of a ``message_key`` within minutes;
        a standard queue is told neither.

        Raises:
            QueueAway: try again later; it may have arrived.
            MessageRefused: trying again cannot help.
        """
        ordered = {"MessageGroupId": group, "MessageDeduplicationId": message_key} if self._url.endswith(FIFO) else {}
        try:
            answer = await self._client.send_message(
                QueueUrl=self._url,
                MessageBody=body,
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
                },
                **ordered,
            )
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _REFUSALS:
                raise MessageRefused(f"send: {error}") from error
            raise QueueAway(f"send: {error!r}") from error
        except (BotoCoreError, OSError) as error:
            raise QueueAway(f"send: {error!r}") from error
        return str(answer["MessageId"])


@asynccontextmanager
async def opened(
    url: str, *, endpoint_url: str | None, region: str, read_timeout_seconds: int = READ_TIMEOUT_SECONDS
) -> AsyncIterator[SqsQueue]:
    """A client of this queue; keys come from the standard variables of every AWS client."""
    config = AioConfig(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=read_timeout_seconds,
        retries={"max_attempts": 2, "mode": "standard"},
    )
    session = get_session()
    async with session.create_client("sqs", region_name=region, endpoint_url=endpoint_url, config=config) as client:
        yield SqsQueue(client, url)


def _message(raw: dict[str, Any]) -> QueueMessage:
    attributes = raw.get("MessageAttributes", {})
    return QueueMessage(
        message_id=raw["MessageId"],
        receipt=raw["ReceiptHandle"],
        body=raw["Body"],
        sent_at=_EPOCH + timedelta(milliseconds=int(raw["Attributes"]["SentTimestamp"])),
        attributes={name: held["StringValue"] for name, held in attributes.items() if "StringValue" in held},
    )
