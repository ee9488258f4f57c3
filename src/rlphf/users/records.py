"""The tables that steps about users exchange, besides people and pairs; no model is needed to read them."""

import pyarrow as pa

# The files of a saved user model.
TENSORS, ABOUT = "user_model.safetensors", "user_model.json"
TEXTS = pa.schema([("id", pa.int64()), ("text", pa.string())])
# Beside the soups of users: what each is asked for, in columns id and text.
ASKED = "asked.parquet"

# The margins of a held-out pair: its user's own and the generic user's. Above 0 the pair is ordered correctly.
SCORED = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("user", pa.int64()),
        ("own", pa.float64()),
        ("generic", pa.float64()),
        ("probability", pa.float64()),
    ]
)

_KEYS = [
    pa.field("prompt_id", pa.string(), nullable=False),
    pa.field("method", pa.string(), nullable=False),
    pa.field("user", pa.int64(), nullable=False),
    pa.field("sample", pa.int32(), nullable=False),
]
ANSWERS = pa.schema(
    [
        *_KEYS,
        pa.field("response", pa.string(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("finished", pa.bool_(), nullable=False),
    ]
)
_JUDGED = [
    pa.field("score", pa.float64(), nullable=False),  # In [0, 1], the user's weighted mean over the preferences.
    pa.field("helpfulness", pa.float64(), nullable=False),
]
USER_SCORES = pa.schema([*_KEYS, *_JUDGED])
# `pairs` are how many of the user's own the method has seen.
COLD_SCORES = pa.schema([*_KEYS, pa.field("pairs", pa.int64(), nullable=False), *_JUDGED])
