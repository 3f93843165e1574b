"""The schemas of the ledger: what each table of a run holds."""

from typing import Any

import pyarrow as pa

from manifests.schema import CARRIED, HELD, schema

ATTEMPTS = pa.schema(
    [
        *schema("uid"),
        pa.field("attempt", pa.int16(), metadata={"says": "1, 2, … in the order in which they were made"}),
        pa.field("last", pa.bool_(), metadata={"says": "the attempt that counts"}),
        pa.field("http_status", pa.int16(), metadata={"says": "last HTTP status seen, if any"}),
        *schema("reason"),
        pa.field("rule", pa.string(), metadata={"says": "receipt of a refusal: which rule of the site"}),
        pa.field("value", pa.string(), metadata={"says": "receipt of a refusal: what it says, word for word"}),
    ]
)
"""`ledger/fetch/*.parquet`: a row per attempt; reason null where a picture came through."""

HEAD = ("uid", "source", "source_row", "url", "reason")
SELECTED = schema(*HEAD, *CARRIED).with_metadata({"tessera_held": ",".join(HELD)})
"""`ledger/select/*.parquet`: a row per input row; CARRIED but HELD is null where the row was dropped, HELD too where it
was removed."""
ENCODING: dict[str, Any] = {
    "use_dictionary": ["source", "reason", "width", "height", "language"],
    "column_encoding": {"source_row": "DELTA_BINARY_PACKED"},
}
"""How the ledger is stored: no dictionaries for columns whose values hardly repeat."""
