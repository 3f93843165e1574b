"""From attempts to shards: new thresholds ask no model, what is dropped is in no shard, and whatif knew it before."""

import json
import shutil
import tarfile

import pytest

import pipeline.steps.caption as caption
from manifests.files import read_table
from pipeline.analysis.whatif import ask
from pipeline.recipes.load import load_recipe
from pipeline.stages.run import StageOptions, run_stage
from tests.support.keep_runs import without_beam
from tests.support.removals import remove


def run_on(root, *sets, stages=("caption", "pretokenize")):
    """Run stages with these values set; return the manifest of the first."""
    recipe = load_recipe(root / "recipe.toml", [f'output.root="{root}"', *sets])
    with without_beam():
        manifests = [run_stage(recipe, stage, StageOptions()).manifest for stage in stages]
    return manifests[0]


def caption_rows(root):
    return [row for path in sorted((root / "captions").glob("*.parquet")) for row in read_table(path).to_pylist()]


def packed(root):
    """Yield (uid, captions) of every packed sample of the tier that is captioned."""
    for path in sorted((root / "codes" / "finetune").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                if member.name.endswith(".json"):
                    note = json.loads(tar.extractfile(member).read())
                    yield bytes.fromhex(note["uid"]), note["captions"]


@pytest.fixture
def no_model(monkeypatch):
    """Let whoever loads a captioner fail."""

    def loaded(*_args, **_more):
        raise AssertionError("a captioner was loaded")

    monkeypatch.setattr(caption, "build_captioner", loaded)


@pytest.mark.parametrize(
    ("key", "reason"),
    [("caption.gate.min_words=50", "caption_too_short"), ("caption.audit.max_repeats=1", "caption_repeated_in_corpus")],
)
def test_what_a_flag_takes_is_in_no_shard_and_no_model_runs_for_it(run, no_model, key, reason):
    sets = [
        key,
        *(f'caption.gate.actions.{flag}="{action}"' for flag, action in ACTIONS.items()),
    ]
    asked = ask(load_recipe(run / "recipe.toml", [f'output.root="{run}"', *sets]))
    manifest = run_on(run, *sets)
    rows = caption_rows(run)
    gone = {row["uid"] for row in rows if row["reason"]}
    assert gone
    assert {row["reason"] for row in rows if row["reason"]} == {reason}
    assert manifest.dropped == {reason: len(gone)}
    assert (manifest.rows_in, manifest.kept) == (len(rows), len(rows) - len(gone))
    seen = dict(packed(run))
    assert gone & seen.keys()
    texts = {row["attempts"][0]["text"] for row in rows if row["reason"]}
    for uid, captions in seen.items():
        said = {one["source"]: one for one in captions}
        assert ("llava" in said) == (uid in {row["uid"] for row in rows if not row["reason"]})
        assert not (uid in gone and texts & {one["text"] for one in captions if one["source"] != "alt"})
    (funnel,) = asked.captions.values()
    assert (funnel.open, funnel.then.dropped, funnel.then.captions) == (0, manifest.dropped, manifest.kept)
    facts = manifest.facts["captioners"]["llava"]
    assert (funnel.then.flags, funnel.then.actions, funnel.then.origins) == (
        facts["flags"],
        facts["actions"],
        facts["origins"],
    )


ACTIONS = {"too_short": "drop_caption", "repeated": "keep", "non_printable": "keep", "empty": "keep"}
"""Nobody is asked a second time."""


def test_fewer_second_attempts_and_more_again_load_no_model(run, monkeypatch):
    """What was answered once is taken over, however often the thresholds go to and fro."""
    every = [f'caption.gate.actions.{flag}="{action}"' for flag, action in ACTIONS.items() if flag != "too_short"]
    ask_some = [*every, 'caption.gate.actions.too_short="retry"', 'caption.gate.after_retry="keep"']
    words = sorted({len(row["attempts"][0]["text"].split()) for row in caption_rows(run)})
    many, few = words[-1] + 1, words[len(words) // 2]
    first = run_on(run, *ask_some, f"caption.gate.min_words={many}", stages=("caption",))

    def loaded(*_args, **_more):
        raise AssertionError("a captioner was loaded")

    monkeypatch.setattr(caption, "build_captioner", loaded)
    fewer = run_on(run, *ask_some, f"caption.gate.min_words={few}", stages=("caption",))
    asked = [one.facts["captioners"]["llava"]["second_attempts"] for one in (first, fewer)]
    assert asked[0] > asked[1] >= 0
    again = run_on(run, *ask_some, f"caption.gate.min_words={many}", stages=("caption",))
    assert again.digest == first.digest


def test_falling_back_puts_the_inputs_words_under_the_captioners_name_and_says_so(run, no_model):
    flags = [f'caption.gate.actions.{flag}="fall_back"' for flag in ("too_short", "repeated", "non_printable", "empty")]
    run_on(run, "caption.gate.min_words=1000", *flags)
    rows = {row["uid"]: row for row in caption_rows(run)}
    assert {row["origin"] for row in rows.values()} <= {"alt", "top_caption", None}
    for uid, captions in packed(run):
        said = {one["source"]: one for one in captions}
        if uid in rows and rows[uid]["caption"]:
            assert (said["llava"]["text"], said["llava"]["origin"]) == (rows[uid]["caption"], rows[uid]["origin"])
            assert said["llava"]["model"] is None
            assert "too_short" in said["llava"]["flags"]


def test_a_removed_row_goes_from_attempts_measures_and_captions(run):
    run_on(run, "caption.audit.max_repeats=1", 'caption.gate.actions.truncated="retry"')
    tables = sorted((run / "captions").rglob("*.parquet"))
    assert {path.parent.name for path in tables} == {
        *("captions", "attempts", "measures", "retries", "remeasures", "repeats")
    }
    gone = next(row["uid"] for row in caption_rows(run) if len(row["attempts"]) == 2)
    remove(run, uid=[gone.hex()])
    for path in sorted((run / "captions").rglob("*.parquet")):
        assert gone not in read_table(path).to_pydict().get("uid", [])
    left = {path.relative_to(run): path.read_bytes() for path in sorted((run / "captions").rglob("*.parquet"))}
    shutil.copytree(run, run.parent / "again")
    run_on(run.parent / "again", "caption.audit.max_repeats=1", 'caption.gate.actions.truncated="retry"')
    attempts = {name: data for name, data in left.items() if "attempts" in name.parts or "retries" in name.parts}
    assert all((run.parent / "again" / name).read_bytes() == data for name, data in attempts.items())


def test_pretokenize_says_where_captions_were_judged_by_other_settings_or_never(run, capsys):
    run_on(run, stages=("pretokenize",))
    assert "note: caption ran here" not in capsys.readouterr().err
    run_on(run, 'caption.gate.actions.truncated="drop_caption"', stages=("pretokenize",))
    said = "note: caption ran here with other settings of judge than this recipe's; pretokenize takes what it left"
    assert said in capsys.readouterr().err
    (run / "manifests" / "caption.json").unlink()
    run_on(run, stages=("pretokenize",))
    assert "warning: tiers ask for captions, and caption has not run in" in capsys.readouterr().err
