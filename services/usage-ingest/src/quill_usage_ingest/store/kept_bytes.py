"""Bytes as they are kept for evidence (L4, L5): compressed, and read back whatever they were compressed with.

Zstandard takes half of zlib's time for a report and a tenth less room. Rows of before are zlib and stay so.
"""

import zlib
from typing import Final

import zstandard

_ZSTANDARD: Final = zstandard.FRAME_HEADER
_LEVEL: Final = 1


def compressed(content: bytes) -> bytes:
    """What to store of these bytes."""
    return _compressor.compress(content)


def decompressed(stored: bytes) -> bytes:
    """The bytes that were stored.

    Raises:
        zlib.error, zstandard.ZstdError: the row is damaged.
    """
    return _decompressor.decompress(stored) if stored.startswith(_ZSTANDARD) else zlib.decompress(stored)


# One thread does all of it; neither object may be shared by more.
_compressor: Final = zstandard.ZstdCompressor(level=_LEVEL)
_decompressor: Final = zstandard.ZstdDecompressor()
