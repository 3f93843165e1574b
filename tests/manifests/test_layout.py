"""From where a file lies alone one knows the step and the shard that wrote it."""

import pytest

from manifests.layout import ADDED, FORMERLY, PLAN, PLANNED, SINGLE, is_of_before, may_write, owner


@pytest.mark.parametrize(
    ("path", "step", "shard"),
    [
        ("ledger/select/00003.parquet", "select", "00003"),
        ("ledger/fetch/00003.parquet", "fetch", "00003"),
        ("pairs/00001.tar", "fetch", "00001"),
        ("pairs/00001.parquet", "fetch", "00001"),
        ("pairs/00001_stats.json", "fetch", "00001"),
        ("scores/00002.parquet", "score", "00002"),
        ("dedup/00000.parquet", "dedup", "00000"),
        ("dedup/top_hashes.json", "dedup", "00000"),
        ("ledger/marks.parquet", "dedup", "00000"),
        ("ledger/eval_matches.parquet", "dedup", "00000"),
        ("ledger/final/00007.parquet", "decide", "00000"),
        ("captions/llava-00004.parquet", "judge", "llava-00004"),
        ("captions/attempts/llava-00004.parquet", "caption", "llava-00004"),
        ("captions/measures/llava-00004.parquet", "measure", "llava-00004"),
        ("captions/retries/llava-00004.parquet", "recaption", "llava-00004"),
        ("captions/remeasures/llava-00004.parquet", "remeasure", "llava-00004"),
        ("captions/repeats/00000.parquet", "repeats", "00000"),
        ("codes/encoded/t256-00000.parquet", "encode", "t256-00000"),
        ("codes/t5/t256-00001.parquet", "t5", "t256-00001"),
        ("codes/t256/00000.tar", "pack", "t256-00000"),
        ("codes/t256/00012.index.json", "pack", "t256-00012"),
        ("codes/t256/index.parquet", "index", "t256-00000"),
    ],
)
def test_every_output_has_its_owner(path, step, shard):
    assert owner(path) == (step, shard)


def test_captions_of_before_are_those_of_the_step_that_wrote_them_then():
    path = "captions/llava-00004.parquet"
    assert is_of_before("caption", path)
    assert not is_of_before("judge", path)
    assert not is_of_before("caption", "captions/attempts/llava-00004.parquet")
    assert all(may_write(step, "llava-00004", path) for step in ("judge", "caption"))
    assert not any(may_write(*whose, path) for whose in (("caption", "llava-00005"), ("measure", "llava-00004")))
    assert may_write("caption", "llava-00004", "recipe.toml")
    assert set(FORMERLY) <= {step for steps in ADDED.values() for step in steps}


@pytest.mark.parametrize(
    "path",
    [
        "",
        "recipe.toml",
        "pairs/00001.jpg",
        "pairs/deep/00001.tar",
        "other/pairs/00001.tar",
        "pairs/00001.tar.bak",
        "dedup/00001.parquet",
        "ledger/select/a/b.parquet",
        "ledger/other.parquet",
    ],
)
def test_what_no_step_writes_has_none(path):
    assert owner(path) == ("", "")


def test_which_steps_plan_and_which_have_one_shard():
    assert PLAN == "plan.json"
    assert PLANNED == ("fetch", "caption", "recaption", "encode", "t5", "pack")
    assert SINGLE == ("dedup", "decide")
