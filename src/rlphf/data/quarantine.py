"""The table of malformed records that were set aside in place of stopping at them."""

import pyarrow as pa

from rlphf.data.sources.raw import Bad

QUARANTINE = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),  # Line, or number of the record where lines mean nothing.
        pa.field("field", pa.string(), nullable=False),  # "" where the whole record is broken.
        pa.field("reason", pa.string(), nullable=False),
        pa.field("record", pa.string(), nullable=False),  # The record as JSON or as it stood, at most 2,000 characters.
    ]
)
QUARANTINED = "set aside as malformed"


def quarantined(bad: Bad, source: str, file: str) -> tuple[str, str, int, str, str, str]:
    """Return the row of QUARANTINE for a record of `source` in `file`, as outputs call them."""
    # Broken UTF-8 is kept visible, as \udc80 and the like.
    field, reason, record = (text.encode("utf-8", "backslashreplace").decode() for text in (bad.field, bad.reason, bad.record))
    return source, file, bad.place.number, field, reason, record[:2000]
