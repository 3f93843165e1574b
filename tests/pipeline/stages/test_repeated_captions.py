"""A captioner that says the same of many pictures is found by the whole stage, and another bound asks no model."""

import pytest

from manifests.files import read_table
from pipeline.recipes.load import load_recipe, parse_recipe
from pipeline.stages.run import StageOptions, run_stage
from tests.support.keep_runs import without_beam
from tests.support.removals import URL, remove

PARROT = """from captioning.base import Entry, register_kind
from captioning.captioner import Answer, CaptionerConfig, read_options

class Parrot:
    def __init__(self, name):
        self.name, self.version, self.model, self.revision = name, 1, "parrot", "r"

    def answers(self, asks):
        for ask in asks:
            said = "A plain grey square on a wall."
            if ask.uid[0] % 4 == 0:
                said = f"The picture numbered {ask.uid.hex()} shows a square."
            yield Answer(ask.uid, said, tokens=8)

register_kind("parrot", Entry(
    version=1,
    config=lambda options: read_options(CaptionerConfig, options),
    settings=lambda config: {},
    weights=lambda config: (),
    build=lambda name, config, batch_size, ahead: Parrot(name),
))
"""


@pytest.fixture(autouse=True)
def _none_afterwards():
    yield
    parse_recipe({"tier": {"all": {"size": 64}}})


def captioned(run, bound):
    """Run the caption stage with this bound; return its manifest and the rows of its tables."""
    sets = ['tier.finetune.caption="parrot"', 'caption.python="parrot.py"', 'caption.parrot.use="parrot"']
    sets += [f'output.root="{run}"', *([f"caption.audit.max_repeats={bound}"] if bound else [])]
    with without_beam():
        made = run_stage(load_recipe(run / "recipe.toml", sets), "caption", StageOptions())
    tables = sorted((run / "captions").glob("parrot-*.parquet"))
    return made.manifest, [row for path in tables for row in read_table(path).to_pylist()]


def test_what_is_said_too_often_is_flagged_and_dropped(run):
    (run / "parrot.py").write_text(PARROT)
    _, rows = captioned(run, 0)
    often = [row for row in rows if row["caption"].startswith("A plain")]
    assert 5 < len(often) < len(rows)
    assert not any("repeated_in_corpus" in row["flags"] for row in rows)
    assert not (run / "captions" / "repeats").exists()
    attempts = {path: path.stat().st_mtime_ns for path in (run / "captions" / "attempts").glob("*")}
    manifest, rows = captioned(run, 3)
    dropped = [row for row in rows if row["reason"] == "caption_repeated_in_corpus"]
    assert {row["uid"] for row in dropped} == {row["uid"] for row in often}
    assert {(row["caption"], "repeated_in_corpus" in row["flags"]) for row in dropped} == {(None, True)}
    assert manifest.dropped == {"caption_repeated_in_corpus": len(often)}
    counts = run / "captions" / "repeats" / "00000.parquet"
    assert read_table(counts)["pictures"].to_pylist() == [len(often)]
    made = counts.stat().st_mtime_ns
    assert not any(row["reason"] for row in captioned(run, len(often))[1])
    assert counts.stat().st_mtime_ns == made
    assert {path: path.stat().st_mtime_ns for path in attempts} == attempts


def test_captions_are_counted_again_where_pictures_were_removed(run):
    (run / "parrot.py").write_text(PARROT)
    dropped = captioned(run, 10)[0].dropped["caption_repeated_in_corpus"]
    assert dropped > 10
    remove(run, url=[URL.format(number) for number in range(12)])
    manifest, rows = captioned(run, 10)
    left = sum(row["caption"].startswith("A plain") for row in rows)
    assert read_table(run / "captions" / "repeats" / "00000.parquet")["pictures"].to_pylist() == [left]
    assert (0 < left <= 10, manifest.dropped) == (True, {})
