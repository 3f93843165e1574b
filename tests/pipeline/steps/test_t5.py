"""The t5 step says how much room its features take, and stores none that are no finite numbers."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from manifests.files import read_table, write_table
from manifests.tables import FEATURES
from pipeline.execution.in_flight import InFlight
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.step import Unit
from pipeline.steps.pack import PackWorker
from pipeline.steps.t5 import PLANNED, T5, T5Worker, estimate
from tokenize_shards.samples import unpack_numbers
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
    _, rows = made(tmp_path, "fp16", ["1.0 -2.5", "1.0 100000"])
    recipe = SimpleNamespace(pretokenize=SimpleNamespace(t5_caption="alt", t5_dtype="fp16", seed=0))
    step = SimpleNamespace(recipe=recipe, t5=SimpleNamespace(weights=lambda: [SimpleNamespace(sha256="w")]))
    parts = {row["uid"]: {} for row in rows}
    worker = PackWorker(step, "parent")
    table = read_table(tmp_path / "codes" / "t5" / "pretrain-00000.parquet")
    old = table.drop_columns(["dtype"]).slice(0, 1)  # as an earlier version wrote it
    for there in (table, old):
        worker._add_features(there.to_pylist(), parts)
        first, second = (parts[row["uid"]]["t5"] for row in rows)
        assert (first["note"]["dtype"], first["numbers"].tolist()) == ("fp16", [[1.0, -2.5]])
        assert (second["note"]["dtype"], unpack_numbers(second["numbers"]).tolist()) == ("bf16", [[1.0, 99840.0]])


def test_captions_are_planned_some_shards_at_a_time(made, monkeypatch):
    step = T5(recipe_of_run(made), made)
    whole = list(step._captions("pretrain"))
    monkeypatch.setattr("pipeline.steps.t5.FILES", 1)
    assert [(name, table.to_pylist()) for name, table in step._captions("pretrain")] == [
        (name, table.to_pylist()) for name, table in whole
    ]
    assert len(whole) > 1
    encoded = read_table(made / "codes" / "encoded" / f"{whole[0][0]}.parquet", ["uid", "reason"]).to_pylist()
    assert whole[0][1]["uid"].to_pylist() == [row["uid"] for row in encoded if row["reason"] is None]
