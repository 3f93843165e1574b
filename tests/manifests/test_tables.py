"""The tables of a run: names and types of their columns, in order, as readers outside the project rely on them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import tables
from manifests.files import writing_table
from manifests.tables import ATTEMPTS, CAPTIONED, CLUSTERS, CROP, ENCODED, ENCODING, FEATURES, PACKED, SAID, SELECTED


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("ATTEMPTS", "uid attempt last http_status reason rule value md5 sha1 source_sha256 pdq"),
        (
            "SELECTED",
            "uid source source_row url reason text top_caption width height similarity pwatermark punsafe"
            " aesthetic_v1 aesthetic_v2 language language_score",
        ),
        ("CLUSTERS", "uid cluster"),
        ("MARKS", "uid reason detail"),
        ("MATCHES", "uid by item detail"),
        (
            "CAPTIONED",
            "uid sha256 captioner caption short_caption fit_caption model revision prompt prompt_sha256 flags action"
            " origin attempts reason",
        ),
        ("ENCODED", "uid sha256 draw size crop n_crops crops codes reason"),
        ("FEATURES", "uid draw caption_sha256 tokens features dtype reason"),
        ("PACKED", "uid url text top_caption said encoded"),
    ],
)
def test_columns_in_order(name, columns):
    assert getattr(tables, name).names == columns.split()


def test_types_of_what_is_no_column_of_the_schema():
    assert ATTEMPTS.field("attempt").type == pa.int16()
    assert ATTEMPTS.field("last").type == pa.bool_()
    assert CLUSTERS.field("cluster").type == pa.binary(16)
    assert CAPTIONED.field("flags").type == pa.list_(pa.string())
    assert ENCODED.field("codes").type == pa.list_(pa.uint16())
    assert ENCODED.field("draw").type == FEATURES.field("draw").type == pa.uint64()
    assert FEATURES.field("features").type == pa.binary()
    assert [field.name for field in CROP] == ["place", "scale", "scaled", "box", "flip"]
    assert [field.name for field in SAID.value_type] == [
        *("captioner", "caption", "short_caption", "fit_caption", "model", "prompt", "origin", "flags")
    ]
    assert PACKED.field("said").type == SAID


def test_the_ledger_says_what_a_dropped_row_keeps():
    assert SELECTED.metadata == {
        b"tessera_held": b"width,height,similarity,pwatermark,punsafe,aesthetic_v1,aesthetic_v2"
    }


def test_the_ledger_is_stored_as_its_encoding_says(tmp_path):
    row = {"uid": bytes(16), "source": "a.parquet", "source_row": 5, "url": "u", "width": 3}
    with writing_table(tmp_path / "t.parquet", SELECTED, **ENCODING) as writer:
        writer.write(pa.Table.from_pylist([row], schema=SELECTED))
    group = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0)
    encodings = {group.column(i).path_in_schema: group.column(i).encodings for i in range(group.num_columns)}
    assert "DELTA_BINARY_PACKED" in encodings["source_row"]
    assert "RLE_DICTIONARY" in encodings["width"]
    assert "RLE_DICTIONARY" not in encodings["url"]
