"""Malformed bytes: the readers of pipeline/ and tokenize_shards/ raise FormatError, or what a user is told for it."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from filters.decontaminate import PromptError, read_prompts
from manifests.files import FormatError, parsing, read_schema, write_bytes, write_json, write_table
from manifests.journal import FileRecord, ShardRecord
from manifests.model_folder import missing_files
from manifests.shards import Sample, ShardError, write_shard
from manifests.weights import WeightsError
from pipeline.analysis.forecast import beside
from pipeline.evaluation.plots import save_loss_curve
from pipeline.evaluation.reconstruction import find_pictures
from pipeline.execution.in_flight import read_in_flight
from pipeline.execution.job import Job
from pipeline.execution.redaction import DamagedFileError, RemovedRows, holds
from pipeline.execution.reuse import earlier_rows, set_aside, stamp
from pipeline.execution.run_folder import recipe_values
from pipeline.recipes.load import load_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.steps.fetch.pairs import earlier_pictures
from pipeline.steps.fetch.retry import failed
from pipeline.steps.sharding import read_range
from pipeline.training.checkpoint import latest_checkpoint
from tokenize_shards.samples import LoaderError, Shard, find_shards, read_samples
from tokenize_shards.tensors import read_tensors

DEEP = b"[" * 200_000
"""JSON and TOML nested deeper than Python recurses."""
UID = bytes([7]) * 16


def test_a_border_raises_the_error_of_its_callers():
    says = r"^0\.tar: cannot be read \(KeyError: 'json'\)$"
    with pytest.raises(LoaderError, match=says), parsing("0.tar", "cannot be read", LoaderError):
        {}["json"]
    with pytest.raises(LoaderError, match=r"^said before$"), parsing("0.tar", "cannot be read", LoaderError):
        raise LoaderError("said before")
    assert issubclass(DamagedFileError, FormatError)


@pytest.mark.parametrize("data", [b"[1]", DEEP, b'{"unit": "a", "uids": 5}', b"\xff"])
def test_what_a_worker_had_in_hand(tmp_path, data):
    write_bytes(tmp_path / "hand", data)
    assert read_in_flight(tmp_path / "hand") == ("", [])


@pytest.mark.parametrize("data", [b"", DEEP, b"[]", b'{"step": "a:B"}', b'{"later": 1}'])
def test_the_job_of_a_worker(tmp_path, data):
    write_bytes(tmp_path / "job.json", data)
    with pytest.raises(FormatError, match=r"job\.json: not a job \(\w+: "):
        Job.read(tmp_path / "job.json")


@pytest.mark.parametrize("recipe", [None, [1], "text"])
def test_a_recipe_of_a_run_that_is_none_counts_as_missing(tmp_path, recipe):
    write_json(tmp_path / "manifests" / "recipe.json", {"recipe": recipe}, sealed=True)
    assert recipe_values(tmp_path) is None
    write_json(tmp_path / "manifests" / "recipe.json", {"recipe": {"input": {}}}, sealed=True)
    assert recipe_values(tmp_path) == {"input": {}}


def test_a_recipe_that_is_no_toml_is_told_with_the_parsers_words(tmp_path):
    path = tmp_path / "r.toml"
    for data, says in ((b"a = ", "Invalid value"), (b"a = '\xff'", "'utf-8' codec"), (b"a = " + DEEP, "recursion")):
        path.write_bytes(data)
        with pytest.raises(RecipeError, match=rf"recipe: .*r\.toml is not TOML: .*{says}"):
            load_recipe(str(path))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "scores" / "0.parquet"
    columns = {"uid": pa.array([UID], pa.binary(16)), "sha256": [b"1"], "reason": pa.array([None], pa.string())}
    rows = pa.table(columns)
    write_table(path, stamp(rows, "this"))
    return path


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def test_tables_of_a_run(table, tmp_path):
    removed = RemovedRows(frozenset([UID]))
    assert holds(table, removed)
    assert read_schema(table).metadata[b"tessera_format"] == b"1"
    assert read_range(table, "reason", 0, 1).num_rows == 1
    damage(table)
    for read in (lambda: holds(table, removed), lambda: read_schema(table), lambda: read_range(table, "uid", 0, 1)):
        with pytest.raises(FormatError, match=r"0\.parquet: not a Parquet table that can be read \("):
            read()
    record = ShardRecord("0", "key", (FileRecord("scores/0.parquet", "00", 1),), 1, 1)
    assert not failed(tmp_path, record, ["dns"])


def test_a_table_that_was_set_aside_and_damaged_since(table, tmp_path):
    record = ShardRecord("0", "key", (FileRecord.of(tmp_path, table),), 1, 1)
    set_aside(tmp_path, "score", [record])
    assert earlier_rows(tmp_path, "score", "this", [UID]).keys() == {(UID, b"1")}
    (aside,) = (tmp_path / ".earlier").rglob("*.parquet")
    damage(aside)
    assert earlier_rows(tmp_path, "score", "this", [UID]) == {}
    assert [path.parent.name for path in (tmp_path / ".earlier" / "score").rglob(aside.name.split("-")[0])] == [
        "damaged"
    ]


@pytest.mark.parametrize("sample", [{"jpg": b"j"}, {"json": b"{}", "jpg": b"j"}, {"json": DEEP, "jpg": b"j"}])
def test_pairs_that_an_earlier_plan_stored(tmp_path, sample: Sample):
    write_shard(tmp_path / "0.tar", [(UID.hex(), sample)])
    with pytest.raises(ShardError, match=rf"0\.tar: pair {UID.hex()} is not as it was stored \(\w+: "):
        list(earlier_pictures(tmp_path / "0.tar", [UID]))


@pytest.mark.parametrize("sha256", [None, ["a"], {"model.safetensors": 5}])
def test_a_checkpoint_whose_state_is_none_is_named_and_passed_over(tmp_path, capsys, sha256):
    write_json(tmp_path / "0000004" / "state.json", {"step": 4, "sha256": {}}, sealed=True)
    (tmp_path / "0000008").mkdir()
    (tmp_path / "0000008" / "model.safetensors").write_bytes(b"m")
    write_json(tmp_path / "0000008" / "state.json", {"step": 8, "sha256": sha256}, sealed=True)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.folder.name == "0000004"
    assert f"checkpoint {tmp_path / '0000008'} is damaged (" in capsys.readouterr().err


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"step": 1}', b'{"step": 1, "loss": "low"}', DEEP])
def test_a_log_of_training(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 0, "loss": 2.5}\n' + line)
    with pytest.raises(FormatError, match=r"metrics\.jsonl: "):
        save_loss_curve(tmp_path / "loss.png", tmp_path / "metrics.jsonl", "loss")


def test_a_stored_picture_that_is_none(tmp_path):
    write_shard(tmp_path / "pairs" / "0.tar", [(UID.hex(), {"jpg": b"\xff\xd8 no picture"})])
    record = {"shard": "0", "key": "k", "rows_in": 1, "rows_out": 1, "dropped": {}, "read": {}}
    files = [{"path": "pairs/0.tar", "sha256": "00", "bytes": 1, "counted": ""}]
    write_json(tmp_path / "manifests" / "journal" / "fetch" / "0.json", {**record, "files": files}, sealed=True)
    with pytest.raises(ShardError, match=rf"0\.tar: sample '{UID.hex()}' has no jpg that can be read"):
        find_pictures(tmp_path, [UID.hex()])


@pytest.mark.parametrize("index", [b"", b"[]", b"{}", b'{"weight_map": {"a": 5}}', DEEP])
def test_an_index_of_a_models_shards(tmp_path, index):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    assert missing_files(tmp_path) == ["a readable model.safetensors.index.json"]


def test_samples_of_codes(tmp_path):
    codes = tmp_path / "codes" / "pretrain"
    write_shard(codes / "0.tar", [("k", {"codes.npy": b"\x93NUMPY", "json": b"{}"})], index=True)
    (shard,) = find_shards(tmp_path / "codes", "pretrain")
    with pytest.raises(LoaderError, match=r"0\.tar, sample k: cannot be read \(\w+: "):
        list(read_samples(shard))
    (codes / "0.tar").write_bytes(b"no tar" * 999)
    with pytest.raises(LoaderError, match=r"shard .*0\.tar: cannot be read \(ReadError: "):
        list(read_samples(Shard(codes / "0.tar", 1, 1, "00")))
    (codes / "0.index.json").write_text(json.dumps({"format": 1, "samples": "many"}))
    with pytest.raises(LoaderError, match=r"has no readable index 0\.index\.json \(.*not a shard's index"):
        find_shards(tmp_path / "codes", "pretrain")


def test_a_checkpoint_of_anybody(tmp_path):
    torch.save({"a": np.zeros(3)}, tmp_path / "a.pt")
    for data in (b"", gzip.compress(b"x"), (tmp_path / "a.pt").read_bytes()[:300]):
        (tmp_path / "b.pt").write_bytes(data)
        with pytest.raises(WeightsError, match=r"b\.pt: wanted a checkpoint of tensors alone; it is (empty|cut short)"):
            read_tensors(tmp_path / "b.pt")


SPAN = {"low": 1, "mid": 2, "high": 3}


@pytest.mark.parametrize(
    "change", [{"kept": None}, {"tiers": [1]}, {"dropped": {"dead": {"low": "1", "high": 2}}}, {"rows": "4"}]
)
def test_a_forecast_that_is_none_counts_as_missing(tmp_path, change):
    forecast = {"rows": 4, "kept": SPAN, "tiers": {"pretrain": SPAN}, "dropped": {"dead": SPAN}}
    write_json(tmp_path / "plan.json", forecast)
    assert beside(tmp_path, 4, 2, {"dead": 2}, {}) == [
        ("rows in", "4", "4"),
        ("kept", "1 to 3", "2"),
        ("dead", "1 to 3", "2"),
    ]
    write_json(tmp_path / "plan.json", {**forecast, **change})
    assert beside(tmp_path, 4, 2, {"dead": 2}, {}) == []


def test_a_line_of_prompts_that_python_cannot_recurse_into(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(DEEP + b"\n")
    with pytest.raises(PromptError, match=r"p\.jsonl: line 1: not JSON \(RecursionError: "):
        read_prompts(tmp_path / "p.jsonl")
