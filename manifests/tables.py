"""What each table of a run holds: the ledger and the sidecars beside the pairs, a schema each."""

from typing import Any

import pyarrow as pa

from manifests.schema import CARRIED, DIGESTS, HELD, schema

ATTEMPTS = pa.schema(
    [
        *schema("uid"),
        pa.field("attempt", pa.int16(), metadata={"says": "1, 2, … in the order in which they were made"}),
        pa.field("last", pa.bool_(), metadata={"says": "the attempt that counts"}),
        pa.field("http_status", pa.int16(), metadata={"says": "last HTTP status seen, if any"}),
        *schema("reason"),
        pa.field("rule", pa.string(), metadata={"says": "receipt of a refusal: which rule of the site"}),
        pa.field("value", pa.string(), metadata={"says": "receipt of a refusal: what it says, word for word"}),
        *schema(*DIGESTS),
    ]
)
"""`ledger/fetch/*.parquet`: a row per attempt; reason null where a picture came through. Digests are null where no body
came whole, in tables of before, and for what a list of hashes names."""

HEAD = ("uid", "source", "source_row", "url", "reason")
SELECTED = schema(*HEAD, *CARRIED).with_metadata({"tessera_held": ",".join(HELD)})
"""`ledger/select/*.parquet`: a row per input row; CARRIED but HELD is null where the row was dropped, HELD too where it
was removed."""
ENCODING: dict[str, Any] = {
    "use_dictionary": ["source", "reason", "width", "height", "language"],
    "column_encoding": {"source_row": "DELTA_BINARY_PACKED"},
}
"""How the ledger is stored: no dictionaries for columns whose values hardly repeat."""

CLUSTERS = pa.schema([*schema("uid"), pa.field("cluster", pa.binary(16))])
"""`dedup/*.parquet`: a row per decoded picture; `cluster` is the smallest uid of its connected component."""
MARKS = pa.schema(
    [
        *schema("uid", "reason"),
        pa.field("detail", pa.string(), metadata={"says": "which list, hash or item, and how near"}),
    ]
)
"""`ledger/marks.parquet`: what lists and evaluation sets say of fetched rows, by uid and reason; a marked row never
wins a cluster.

`reason` is `removed`, `placeholder`, `in_eval_set`, or `near_duplicate` (of a removed picture); a row may
have several marks. decide gives a row its first mark.
"""
MATCHES = pa.schema(
    [
        *schema("uid"),
        pa.field(
            "by",
            pa.string(),
            metadata={"says": "phash, cosine: the picture; ngram: the alt text or the caption that came with it"},
        ),
        pa.field("item", pa.string(), metadata={"says": "picture of the evaluation set, or file of prompts and line"}),
        pa.field("detail", pa.string(), metadata={"says": "distance in bits, or the words that both have"}),
    ]
)
"""`ledger/eval_matches.parquet`: every match with an evaluation set, whatever becomes of the row."""

ATTEMPT = (
    pa.field("prompt", pa.string(), metadata={"says": "name of the prompt"}),
    pa.field("prompt_sha256", pa.binary(32), metadata={"says": "of the filled prompt in UTF-8"}),
    pa.field("seed", pa.int64(), metadata={"says": "0: the most likely words; else what the words were drawn by"}),
    pa.field("text", pa.string(), metadata={"says": "the captioner's words; null where there are none"}),
    pa.field("tokens", pa.int32(), metadata={"says": "tokens generated"}),
    pa.field("prompt_tokens", pa.int32(), metadata={"says": "tokens of the question, where they are known"}),
    pa.field("at_limit", pa.bool_(), metadata={"says": "stopped at the token limit"}),
)
ATTEMPTED = pa.schema(
    [
        *schema("uid", "sha256"),
        pa.field(
            "made_from",
            pa.binary(32),
            metadata={"says": "sha256 of the picture's sha256, prompt_sha256 and the seed (8 bytes, big-endian)"},
        ),
        *(pa.field(name, pa.string()) for name in ("captioner", "model", "revision")),
        *ATTEMPT,
        *schema("reason"),
    ]
)
"""`captions/attempts/*.parquet` and `captions/retries/*.parquet`: a row per picture and captioner; reason is null where
the captioner answered."""
TRIED = pa.struct([*ATTEMPT, pa.field("flags", pa.list_(pa.string())), *schema("reason")])
"""An attempt as it stands beside the caption that came of it."""
CAPTIONED = pa.schema(
    [
        *schema("uid", "sha256"),
        *(
            pa.field(name, pa.string())
            for name in ("captioner", "caption", "short_caption", "fit_caption", "model", "revision", "prompt")
        ),
        pa.field("prompt_sha256", pa.binary(32)),
        pa.field("flags", pa.list_(pa.string()), metadata={"says": "of the attempt that counts"}),
        pa.field("action", pa.string(), metadata={"says": "what followed: keep, fall_back, drop_caption"}),
        pa.field(
            "origin", pa.string(), metadata={"says": "whose words stand here: attempt_1, attempt_2, top_caption, alt"}
        ),
        pa.field("attempts", pa.list_(TRIED)),
        *schema("reason"),
    ]
)
"""`captions/*.parquet`: a row per picture and captioner, as the gate left it; reason is null where there is a caption.
`fit_caption`: the leading sentences that fit into the text encoder's tokens, where the caption does not; empty where
not even the first one does."""
SAID = pa.list_(
    pa.struct(
        [
            *(
                pa.field(name, pa.string())
                for name in ("captioner", "caption", "short_caption", "fit_caption", "model", "prompt", "origin")
            ),
            pa.field("flags", pa.list_(pa.string())),
        ]
    )
)
"""What captioners said of a picture, as it is packed beside its codes: the texts of its rows in `captions/`, in the
tier's order of preference."""

SAID_BEFORE = pa.list_(
    pa.struct([pa.field(name, pa.string()) for name in ("captioner", "caption", "short_caption", "model", "prompt")])
)
"""The same where captions were not judged: there are none, or the step `caption` wrote them, flags and all, into
`captions/` itself. Plans and shards of such a run keep their bytes."""
REPEATS = pa.schema(
    [
        pa.field("captioner", pa.string()),
        pa.field("key", pa.uint64(), metadata={"says": "8 bytes of BLAKE2b over the caption's letters and digits"}),
        pa.field(
            "pictures", pa.int64(), metadata={"says": "different pHashes that the caption stands beside, 2 or more"}
        ),
    ]
)
"""`captions/repeats/00000.parquet`: a row per caption of a captioner that stands beside several pictures, by captioner
and key."""

DRAW = pa.field("draw", pa.uint64(), metadata={"says": "as in codes/encoded: rows stand in this order"})
CROP = pa.struct(
    [
        pa.field("place", pa.string()),
        pa.field("scale", pa.float64()),
        pa.field(
            "scaled", pa.list_(pa.int32()), metadata={"says": "width and height that the picture was scaled to, pixels"}
        ),
        pa.field(
            "box", pa.list_(pa.int32()), metadata={"says": "left, top, right, bottom in the scaled picture, pixels"}
        ),
        pa.field("flip", pa.bool_(), metadata={"says": "mirrored after the cut"}),
    ]
)
ENCODED = pa.schema(
    [
        *schema("uid", "sha256"),
        pa.field(
            "draw",
            pa.uint64(),
            metadata={"says": "uid_hash under pretokenize.seed: rows stand in this order, the packed one"},
        ),
        pa.field("size", pa.int16(), metadata={"says": "side of the crop, pixels"}),
        pa.field("crop", pa.string(), metadata={"says": "center, center+flip, or ten_SCALE joined by +"}),
        pa.field("n_crops", pa.int16()),
        pa.field("crops", pa.list_(CROP), metadata={"says": "where each code array was cut"}),
        pa.field("codes", pa.list_(pa.uint16()), metadata={"says": "n_crops x n_tokens codes, raster order"}),
        *schema("reason"),
    ]
)
"""`codes/encoded/*.parquet`: a row per picture and tier; reason is null where there are codes."""
FEATURES = pa.schema(
    [
        *schema("uid"),
        DRAW,
        pa.field("caption_sha256", pa.binary(32)),
        pa.field("tokens", pa.int16(), metadata={"says": "real tokens, the closing one included, at most 120"}),
        pa.field("features", pa.binary(), metadata={"says": "tokens x width numbers of 16 bits, little endian"}),
        pa.field(
            "dtype",
            pa.string(),
            metadata={"says": "fp16, or bf16 where the recipe asks for it or fp16 overflows; null: as the recipe asks"},
        ),
        *schema("reason"),
    ]
)
"""`codes/t5/*.parquet`: a row per encoded pair; reason `missing_value` where it lacks the caption that the recipe
names, `not_finite` where a feature is NaN or infinite."""
PACKED = pa.schema(
    [*schema("uid", "url", "text", "top_caption"), pa.field("said", SAID), pa.field("encoded", pa.string())]
)
"""`manifests/plan/pack/*.parquet`: a row per sample in the packed order; `encoded` is the stem of the table with its
codes."""
PACKED_BEFORE = PACKED.set(PACKED.get_field_index("said"), pa.field("said", SAID_BEFORE))
"""The same where captions were not judged."""
