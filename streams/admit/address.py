"""Where a request wants its answer: read from its body or from the headers of three frameworks' dialects."""

from __future__ import annotations

from schemas.codec import Headers, header
from schemas.request import ReplyAddress

#: The header that names the reply topic, the one that holds the correlation id, and the dialect they belong to.
DIALECTS = (
    ("kafka_replyTopic", "kafka_correlationId", "spring"),
    ("Faust-Ag-ReplyTo", "Faust-Ag-CorrelationId", "faust"),
    ("reply_to", "correlation_id", "faststream"),
)

MAX_CORRELATION_BYTES = 1_024
MAX_PARTITION = 2**31 - 1
MAX_PARTITION_DIGITS = 10


def read_address(body: dict[str, object], headers: Headers) -> ReplyAddress | None:
    """The reply address, leniently: whatever cannot be read counts as absent. The body's word comes first."""
    named = body.get("reply_to")
    correlation = _any_correlation(headers)
    if isinstance(named, str) and named:
        return _address(named, correlation, "spillway", None)
    for topic_header, correlation_header, dialect in DIALECTS:
        topic = _text(header(headers, topic_header))
        if topic:
            partition = _partition(header(headers, "kafka_replyPartition"))
            return _address(
                topic,
                header(headers, correlation_header),
                dialect,
                partition if dialect == "spring" else None,
            )
    return None


def _address(topic: str, correlation: bytes | None, dialect: str, partition: int | None) -> ReplyAddress:
    if correlation is None or len(correlation) > MAX_CORRELATION_BYTES:
        return ReplyAddress(topic=topic, dialect=dialect, partition=partition)
    text = _text(correlation)
    return ReplyAddress(
        topic=topic,
        dialect=dialect,
        partition=partition,
        # Spring's correlation ids may be any bytes (a UUID's sixteen, for one): those travel as hexadecimal.
        correlation_id=correlation.hex() if text is None else text,
        binary_correlation=text is None,
    )


def _any_correlation(headers: Headers) -> bytes | None:
    found = (header(headers, name) for _, name, _ in DIALECTS)
    return next((value for value in found if value), None)


def _text(value: bytes | None) -> str | None:
    try:
        return value.decode() if value is not None else None
    except UnicodeDecodeError:
        return None


def _partition(value: bytes | None) -> int | None:
    """Spring writes four big-endian bytes; others write digits."""
    if value is None:
        return None
    text = _text(value)
    if text is not None and text.isascii() and text.isdigit() and len(text) <= MAX_PARTITION_DIGITS:
        number = int(text)
    elif len(value) == 4:  # noqa: PLR2004 - the size of Spring's int
        number = int.from_bytes(value, "big", signed=True)
    else:
        return None
    return number if 0 <= number <= MAX_PARTITION else None
