"""Copy a run of chunk files to Kafka, line by line, from where it was left off (L1, L4).

Killed anywhere, it goes on at the last position that was saved: at most one batch is sent twice, which changes nothing.
"""

import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from quill_contracts.intakes import DailyReport

from quill_usage_ingest.domain.report_run import BrokenRun, Manifest, ReportRun, RunPosition, check_manifest
from quill_usage_ingest.wire.report_runs import from_wire_manifest, to_wire_daily_report

BATCH_LINES: Final = 200
BATCH_BYTES: Final = 8 * 1024 * 1024
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
MANIFEST_BYTES_MAX: Final = 64 * 1024 * 1024
BLANK_LINES_MAX: Final = 1_000
"""A mebibyte can open to a billion empty lines, which nobody should count to the end."""
INFLATED_PIECE_BYTES: Final = 1024 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS


class Bucket(Protocol):
    """Objects in pieces."""

    def pieces(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """Raises `BrokenRun` when there is no such object."""
        ...


class CopyTarget(Protocol):
    """Where lines go and where it is remembered how far."""

    async def send(self, reports: list[DailyReport]) -> None:
        """Return when all are safe."""
        ...

    async def reached(self, position: RunPosition) -> None:
        """Remember it; a run that is copied again goes on there."""
        ...


async def copy_run(run: ReportRun, start: RunPosition, *, bucket: Bucket, target: CopyTarget) -> int:
    """Copy what is left of a run; returns how many lines this call sent.

    Raises:
        BrokenRun: manifest, chunk or count is not what was promised; what was sent stays sent.
    """
    with _blaming("manifest_key"):
        manifest = from_wire_manifest(await _whole(bucket, run.bucket, run.manifest_key))
    check_manifest(manifest, run)
    with _blaming("chunk_keys"):
        return await _copy_chunks(run, manifest, start, bucket=bucket, target=target)


@contextmanager
def _blaming(attribute: str) -> Iterator[None]:
    """What is broken names at least the field that led to it."""
    try:
        yield
    except BrokenRun as broken:
        broken.attribute = broken.attribute or attribute
        raise


async def _copy_chunks(
    run: ReportRun, manifest: Manifest, start: RunPosition, *, bucket: Bucket, target: CopyTarget
) -> int:
    sent = 0
    for number, key in enumerate(manifest.chunk_keys):
        if number < start.chunk:
            continue
        skipped = start.line if number == start.chunk else 0
        batch: list[DailyReport] = []
        waiting_bytes = line_number = 0
        async for line in _lines(bucket.pieces(run.bucket, key), key):
            line_number += 1
            if line_number > run.organizations + BLANK_LINES_MAX:
                detail = f"{key}: holds more lines than the {run.organizations} organizations of the whole run"
                raise BrokenRun("wrong_line_count", detail, "total_orgs")
            if line_number <= skipped or not line.strip():
                continue
            batch.append(to_wire_daily_report(line, run, chunk_key=key, number=line_number))
            waiting_bytes += len(line)
            if len(batch) >= BATCH_LINES or waiting_bytes >= BATCH_BYTES:
                await target.send(batch)
                await target.reached(RunPosition(number, line_number))
                sent += len(batch)
                batch, waiting_bytes = [], 0
        if batch:
            await target.send(batch)
            sent += len(batch)
        await target.reached(RunPosition(number + 1, 0))
    return sent


async def _whole(bucket: Bucket, name: str, key: str) -> bytes:
    body = bytearray()
    async for piece in bucket.pieces(name, key):
        body += piece
        if len(body) > MANIFEST_BYTES_MAX:
            raise BrokenRun("wrong_manifest", f"{key}: is longer than {MANIFEST_BYTES_MAX} bytes")
    return bytes(body)


async def _lines(pieces: AsyncIterator[bytes], key: str) -> AsyncIterator[bytes]:
    """Lines of a gzip file, holding no more than a line and a piece of it at a time."""
    held = bytearray()
    async for part in _inflated(pieces, key):
        held += part
        if b"\n" not in part:
            if len(held) > LINE_BYTES_MAX:
                raise BrokenRun("line_too_long", f"{key}: a line is longer than {LINE_BYTES_MAX} bytes")
            continue
        *whole, rest = bytes(held).split(b"\n")
        held = bytearray(rest)
        for line in whole:
            yield line
    if held:
        yield bytes(held)


async def _inflated(pieces: AsyncIterator[bytes], key: str) -> AsyncIterator[bytes]:
    """The content of gzip members one after another, never more than a mebibyte at once however well it is packed."""
    opening = zlib.decompressobj(_GZIP)
    is_begun = False
    async for piece in pieces:
        waiting, is_full = piece, False
        while waiting or is_full:
            if opening.eof:
                opening, is_begun = zlib.decompressobj(_GZIP), False
            try:
                part = opening.decompress(waiting, INFLATED_PIECE_BYTES)
            except zlib.error as error:
                raise BrokenRun("bad_gzip", f"{key}: is not gzip: {error}") from error
            is_begun = True
            waiting = opening.unused_data if opening.eof else opening.unconsumed_tail
            is_full = len(part) == INFLATED_PIECE_BYTES and not opening.eof
            if part:
                yield part
    if is_begun and not opening.eof:
        raise BrokenRun("truncated_gzip", f"{key}: the gzip stream ends too early")
