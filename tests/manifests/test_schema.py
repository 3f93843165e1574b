"""Every column has one name, one type and one sentence."""

import pyarrow as pa
import pytest

from manifests.schema import CARRIED, COLUMNS, HELD, UID, schema


def test_columns_stand_in_the_order_asked_for_with_what_they_say():
    table = schema("height", "uid", "phash")
    assert table.names == ["height", "uid", "phash"]
    assert table.types == [pa.int32(), pa.binary(16), pa.uint64()]
    assert table.field("phash").metadata == {b"says": b"64-bit perceptual hash, bit for bit imagehash.phash"}
    assert len(schema()) == 0


def test_a_column_that_nobody_defined():
    with pytest.raises(KeyError, match="widht"):
        schema("uid", "widht")


def test_types_that_files_of_today_depend_on():
    assert pa.binary(16) == UID
    expected = {
        **{"source_row": pa.int64(), "hash": pa.int64(), "sha256": pa.binary(32), "url": pa.string()},
        **{"similarity": pa.float32(), "punsafe": pa.float32(), "reason": pa.string(), "width": pa.int32()},
    }
    assert {name: COLUMNS[name].type for name in expected} == expected


def test_every_column_says_what_it_holds():
    assert [name for name, field in COLUMNS.items() if not (field.metadata or {}).get(b"says")] == []


def test_what_select_carries_and_what_a_dropped_row_keeps():
    scores = ("similarity", "pwatermark", "punsafe", "aesthetic_v1", "aesthetic_v2")
    assert ("text", "top_caption", "width", "height", *scores, "language", "language_score") == CARRIED
    assert ("width", "height", *scores) == HELD
