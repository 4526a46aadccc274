"""Batches as the wire has them, whole ones and others that no client of ours would send."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
#: What the checksum covers begins behind it.
CHECKSUM, COVERED = 17, 21
#: Stands for a header's name of three bytes that is no UTF-8.
NOT_UTF8, STAND_IN = b"\xc3\x28\xff", "@%@"


@dataclass(frozen=True)
class Sent:
    """One record of a batch."""

    value: bytes | None
    key: bytes | None = b"acme"
    headers: Sequence[tuple[str, bytes | None]] = ()


def batch(
    *records: Sent, codec: str = "none", first: int = 0, transactional: bool = False, producer: int = -1
) -> bytes:
    """A batch with these records, the first at the offset `first`."""
    builder = DefaultRecordBatchBuilder(2, CODECS[codec], int(transactional), producer, 0, 0, 100_000_000)
    for number, record in enumerate(records):
        headers = list(record.headers)
        assert builder.append(number, timestamp=1_000 + number, key=record.key, value=record.value, headers=headers)
    return struct.pack(">q", first) + bytes(builder.build())[8:]


def signed(raw: bytes) -> bytes:
    """The same with the checksum that belongs to it."""
    return raw[:CHECKSUM] + struct.pack(">I", calc_crc32c(raw[COVERED:])) + raw[COVERED:]


def with_codec(raw: bytes, codec: int, body: bytes) -> bytes:
    """A batch whose records are `body`, said to be compressed so."""
    header = bytearray(raw[:61])
    struct.pack_into(">i", header, 8, 61 - 12 + len(body))
    struct.pack_into(">h", header, COVERED, codec)
    return signed(bytes(header) + body)


def with_name_that_is_no_utf8(raw: bytes) -> bytes:
    """A batch in which a header is called STAND_IN, with a name of as many bytes that is no UTF-8."""
    assert STAND_IN.encode() in raw
    return signed(raw.replace(STAND_IN.encode(), NOT_UTF8))
