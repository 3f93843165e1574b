"""The score step on a shard of its own: the same bytes with decoders beside it, and what is no number is null and
counted."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.scorers.panel import Scored
from manifests.files import write_table
from manifests.shards import write_shard
from pipeline.execution.decode_pool import Decoders
from pipeline.execution.in_flight import InFlight
from pipeline.execution.step import Unit
from pipeline.recipes.load import parse_recipe
from pipeline.steps.score import NO_NUMBER, Score, ScoreWorker
from tests.support.small_web import jpeg, picture

RECIPE = {
    "score": {
        "use": ["clip_similarity", "aesthetic_v2"],
        "batch_size": 2,
        "embeddings": True,
        "clip": {"weights": "stand-in"},
        "aesthetic_v2": {"weights": "stand-in"},
    },
    "tier": {"pretrain": {"size": 16}},
}
KEYS = [f"{n:032x}" for n in range(5)]
TEXTS = [("a", "b"), ("a", None), (None, None), ("a", "b"), ("a", "b")]


class Fixed:
    """A panel whose aesthetic score is the picture's width, infinite for 42; the caption's cosine is NaN for it too."""

    width = 3

    @property
    def preprocessing(self):
        return {"clip": "none"}

    def score(self, images, texts, needs):
        wide = np.array([image.width for image in images], np.float32)
        odd = wide == 42
        columns = {
            "clip_similarity": np.where([text is None for text in texts["text"]], np.nan, 0.5).astype(np.float32),
            "clip_similarity_caption": np.where(
                [t is None or o for t, o in zip(texts["caption"], odd, strict=True)], np.nan, 0.25
            ),
            "aesthetic_v2": np.where(odd, np.inf, np.where(needs["aesthetic_v2"], wide, np.nan)).astype(np.float32),
        }
        return Scored(columns, np.stack([wide / 64] * 3, axis=1).astype(np.float16))


@pytest.fixture
def unit(tmp_path):
    pictures = [jpeg(picture(n, 40 + n, 48)) for n in range(4)] + [b"no picture"]
    (tmp_path / "pairs").mkdir()
    write_shard(
        tmp_path / "pairs" / "00000.tar", [(key, {"jpg": data}) for key, data in zip(KEYS, pictures, strict=True)]
    )
    rows = [{"key": key, "caption": text, "top_caption": top} for key, (text, top) in zip(KEYS, TEXTS, strict=True)]
    rows[0]["aesthetic_v2"] = 6.5  # the input says it
    rows[2]["top_caption"] = "b"
    wanted = pa.schema(
        [("key", pa.string()), ("caption", pa.string()), ("top_caption", pa.string()), ("aesthetic_v2", pa.float32())]
    )
    write_table(tmp_path / "pairs" / "00000.parquet", pa.Table.from_pylist(rows, schema=wanted))
    return Unit("00000", {"tar": "pairs/00000.tar", "table": "pairs/00000.parquet", "made_by": "x"}, "content", "key")


def scored(root, unit, decoders):
    step = Score(parse_recipe(RECIPE), root)
    record = ScoreWorker(step, Fixed(), decoders).run(unit, InFlight())
    return record, pq.read_table(root / record.files[0].path)


def test_what_is_no_number_is_null_and_counted(unit, tmp_path):
    record, table = scored(tmp_path, unit, Decoders(0))
    assert table["aesthetic_v2"].to_pylist() == [None, 41, None, 43, None]  # the input's; inf; no picture
    assert table["clip_similarity"].to_pylist() == [0.5, 0.5, None, 0.5, None]  # row 2 has no text
    assert table["clip_similarity_caption"].to_pylist() == [0.25, None, None, 0.25, None]
    assert table.schema.metadata[NO_NUMBER.encode()] == b'{"aesthetic_v2":1,"clip_similarity_caption":1}'
    assert record.read == {"no_number": {"aesthetic_v2": 1, "clip_similarity_caption": 1}}
    assert (record.rows_in, record.rows_out, record.dropped) == (5, 4, {"not_an_image": 1})
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), 3)
    assert [float(row[0]) for row in table["embedding"].to_pylist()] == [0.625, 0.640625, 0.65625, 0.671875, 0]


def test_what_is_no_number_is_told_without_the_table_and_of_a_record_of_before_with_it(unit, tmp_path):
    record, _ = scored(tmp_path, unit, Decoders(0))
    step, said = Score(parse_recipe(RECIPE), tmp_path), record.read["no_number"]
    assert step._no_number(replace(record, read={})) == said
    (tmp_path / record.files[0].path).unlink()
    assert step._no_number(record) == said


def test_decoders_beside_the_worker_change_no_byte(unit, tmp_path):
    alone, _ = scored(tmp_path, unit, Decoders(0))
    decoders = Decoders(2)
    beside, _ = scored(tmp_path, unit, decoders)
    decoders.close()
    assert beside.files == alone.files


def test_a_row_that_killed_its_workers_is_not_decoded_again(unit, tmp_path):
    step = Score(parse_recipe(RECIPE), tmp_path)
    record = ScoreWorker(step, Fixed(), Decoders(0)).run(unit, InFlight(crash_counts={KEYS[1]: 3}))
    assert record.dropped == {"not_an_image": 1, "worker_died": 1}


def test_scores_of_an_empty_shard_have_the_same_columns(unit, tmp_path):
    worker = ScoreWorker(Score(parse_recipe(RECIPE), tmp_path), SimpleNamespace(width=3, preprocessing={}), Decoders(0))
    assert worker._table([{"uid": bytes(16), "reason": "truncated"}]).schema.field("embedding").type == pa.list_(
        pa.float16(), 3
    )
