"""Evidence reads back byte for byte, whichever release stored it (L4, L5)."""

import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from quill_usage_ingest.store.kept_bytes import compressed, decompressed


@given(st.binary(max_size=5_000))
def test_what_was_stored_comes_back(content: bytes):
    assert decompressed(compressed(content)) == content


@given(st.binary(max_size=5_000))
def test_rows_of_before_are_zlib_and_stay_readable(content: bytes):
    assert decompressed(zlib.compress(content, level=1)) == content


@pytest.mark.parametrize("damaged", [b"", b"not compressed at all", compressed(b"a" * 100)[:-4]])
def test_a_damaged_row_says_so(damaged: bytes):
    with pytest.raises((zlib.error, zstandard.ZstdError)):
        decompressed(damaged)
