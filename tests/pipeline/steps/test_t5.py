"""The t5 step says how much room its features take, and stores none that are no finite numbers."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from manifests.files import read_table, write_table
from manifests.tables import FEATURES
from manifests.uid import uid_hash
from pipeline.execution.in_flight import InFlight
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.step import Unit
from pipeline.loading.captions import drawable
from pipeline.steps.pack import PackWorker
from pipeline.steps.t5 import PLANNED, T5, T5Worker, estimate
from tokenize_shards.samples import captions_of, unpack_numbers
from tokenize_shards.text import MAX_TOKENS


def test_the_estimate_says_what_padding_would_take():
    line = estimate({40: 50}, 2048)  # 12 tokens each: 50 x 12 x 2048 x 2 bytes; padded ten times that
    assert "50 captions will take about 2.46 MB (24.58 MB if padded to 120 tokens" in line
    assert "24.6 TB" in line


def test_the_schema_says_the_most_tokens_there_are():
    assert str(MAX_TOKENS).encode() in FEATURES.field("tokens").metadata[b"says"]


class SaidFeatures:
    """Stands for the encoder: a caption's features are the numbers that it spells."""

    dim = 2

    def features(self, captions):
        return [np.array([caption.split()], np.float32) for caption in captions]


def made(tmp_path, dtype, captions):
    """Run a t5 worker over these captions; return its record and table."""
    plan = [{"uid": bytes([n]) * 16, "draw": n, "caption": caption} for n, caption in enumerate(captions)]
    write_table(tmp_path / "plan.parquet", pa.Table.from_pylist(plan, schema=PLANNED))
    recipe = SimpleNamespace(pretokenize=SimpleNamespace(t5_dtype=dtype))
    step = SimpleNamespace(root=tmp_path, recipe=recipe, made_from=T5.made_from)
    unit = Unit("pretrain-00000", {"made_by": "m", "plan": "plan.parquet"}, "content", "key")
    record = T5Worker(step, SaidFeatures()).run(unit, InFlight())
    return record, read_table(tmp_path / "codes" / "t5" / "pretrain-00000.parquet").to_pylist()


def test_features_that_overflow_fp16_are_stored_as_bf16(tmp_path):
    record, (small, large) = made(tmp_path, "fp16", ["1.0 -2.5", "1.0 100000"])
    assert (record.rows_out, record.dropped) == (2, {})
    assert (small["dtype"], small["features"]) == ("fp16", np.array([1.0, -2.5], "<f2").tobytes())
    assert large["dtype"] == "bf16"
    assert np.frombuffer(large["features"], "<u2").tolist() == [0x3F80, 0x47C3]  # 1.0 and 99,840, bfloat16's nearest


def test_features_that_are_no_finite_numbers_are_counted_and_not_stored(tmp_path):
    for dtype in ("fp16", "bf16"):
        record, rows = made(tmp_path, dtype, ["1.0 nan", "2.0 2.0", "inf 1.0", None])
        assert (record.rows_in, record.rows_out) == (4, 1)
        assert record.dropped == {"not_finite": 2, "missing_value": 1}
        assert [row["features"] is None for row in rows] == [True, False, True, True]


def test_packed_features_are_read_in_the_dtype_of_their_row(tmp_path):
    _, rows = made(tmp_path, "fp16", ["1.0 -2.5", None, "1.0 100000"])
    recipe = SimpleNamespace(pretokenize=SimpleNamespace(t5_caption="alt", t5_dtype="fp16", seed=0))
    stored = SimpleNamespace(weights=lambda: [SimpleNamespace(sha256="w")])
    worker = PackWorker(SimpleNamespace(root=tmp_path, recipe=recipe, t5=stored), "parent")
    path = tmp_path / "codes" / "t5" / "pretrain-00000.parquet"
    planned = [{"uid": uid} for uid in (b"\7" * 16, *(row["uid"] for row in rows))]  # the first was never encoded
    for old in (False, True):  # as an earlier version wrote it
        if old:
            write_table(path, read_table(path).drop_columns(["dtype"]).slice(0, 2))
        features = worker._features(Unit(path.stem, {}, "content"))
        none, first, nothing, second = worker._with_features(planned, features)
        assert (first["t5"]["note"]["dtype"], first["t5"]["numbers"].tolist()) == ("fp16", [[1.0, -2.5]])
        assert "t5" not in none
        assert "t5" not in nothing
        assert first["t5"]["note"] == {"source": "alt", "dtype": "fp16", "weights": "w", "tokens": 1}
        if old:
            assert "t5" not in second
        else:
            assert (second["t5"]["note"]["dtype"], unpack_numbers(second["t5"]["numbers"]).tolist()) == (
                "bf16",
                [[1.0, 99840.0]],
            )


def texts_of(row):
    return [(one["source"], one["text"]) for one in captions_of(row)]


NAMES = ["alt", "top_caption", "llava", "llava_short", "llava_fit", "recaption", "recaption_short"]


@pytest.mark.parametrize("caption", NAMES)
def test_shards_are_the_packed_ones_with_the_captions_that_their_samples_hold(run, tiny_t5, caption):
    sets = ['pretokenize.t5="precomputed"', f'pretokenize.t5_weights="{tiny_t5}"']
    step = T5(recipe_of_run(run, sets=[*sets, f'pretokenize.t5_caption="{caption}"']), run)
    units = step.units()
    packed = sorted((run / "manifests" / "plan" / "pack").glob("*.parquet"))
    assert sorted(unit.name for unit in units) == [path.stem for path in packed]
    for path in packed:
        rows = read_table(path).to_pylist()
        captions = [dict(drawable(texts_of(row))).get(caption) for row in rows]
        planned = read_table(run / "manifests" / "plan" / "t5" / path.name)
        assert planned.schema.equals(PLANNED)
        assert planned["uid"].to_pylist() == [row["uid"] for row in rows]
        assert planned["draw"].to_pylist() == sorted(uid_hash(row["uid"], 0) for row in rows)
        assert planned["caption"].to_pylist() == captions
    assert step.units() == units
    assert T5(recipe_of_run(run), run).units() == []
