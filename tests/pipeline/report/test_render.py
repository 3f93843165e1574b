"""The report: whatever a run folder holds, one safe page that loads nothing, and its poster."""

import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from manifests.files import write_json, write_table
from manifests.reasons import by_group, group_of
from manifests.shards import write_shard
from pipeline.report import render as report
from pipeline.report.facts import gather
from pipeline.report.render import ReportError, main, render_report, write_report

EVIL = '<script>alert("x")</script>'
FINAL = pa.schema(
    [
        ("source", pa.string()),
        ("source_row", pa.int64()),
        ("uid", pa.binary(16)),
        ("url", pa.string()),
        ("fate", pa.string()),
        ("reason", pa.string()),
        ("tiers", pa.list_(pa.string())),
        ("conse", pa.float32()),
        ("conse_origin", pa.string()),
    ]
)


def uid(number: int) -> bytes:
    return hashlib.md5(str(number).encode()).digest()


def jpeg(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (90, 60), (number * 5 % 256, 120, 90)).save(out, "JPEG")
    return out.getvalue()


def make_run(root: Path, rows: int = 60) -> Path:
    """Write a run of `rows` rows: of every six, three kept, a near duplicate of the first, a low score, a 404."""
    fates = [None, None, None, "near_duplicate", "similarity", "http_404"]
    final = [
        {
            "source": "part.parquet",
            "source_row": n,
            "uid": uid(n),
            "url": f"http://h.test/{n}.jpg?a=1&b=2",
            "fate": "dropped" if fates[n % 6] else "kept",
            "reason": fates[n % 6],
            "tiers": [] if fates[n % 6] else ["pretrain", *(["finetune"] if n % 6 else [])],
            "conse": n / 100,
            "conse_origin": "conse",
        }
        for n in range(rows)
    ]
    write_table(root / "ledger" / "final" / "00000.parquet", pa.Table.from_pylist(final, schema=FINAL))
    here = [n for n in range(rows) if n % 6 != 5]
    samples = [(uid(n).hex(), {"jpg": jpeg(n), "txt": f"words {n} {EVIL}".encode(), "json": b"{}"}) for n in here]
    write_shard(root / "pairs" / "00000.tar", samples)
    write_table(root / "pairs" / "00000.parquet", pa.table({"key": [uid(n).hex() for n in here]}))
    clusters = [{"uid": uid(n), "cluster": uid(n - n % 6)} for n in here if n % 6 in (0, 3)]
    write_table(
        root / "dedup" / "00000.parquet",
        pa.Table.from_pylist(clusters, schema=pa.schema([("uid", pa.binary(16)), ("cluster", pa.binary(16))])),
    )
    weights = [
        {"name": "aesthetic_v2", "sha256": "ab" * 32, "stand_in": True},
        {"name": "open_nsfw", "sha256": "cd" * 32, "stand_in": False},
    ]
    each = rows // 6
    manifest = {
        "stage": "filter",
        "digest": "5f" * 32,
        "rows_in": rows,
        "kept": 3 * each,
        "weights": weights,
        "losses": [{"file": "broken.parquet", "fault": "cut"}],
        "dropped": {"near_duplicate": each, "similarity": each, "http_404": each},
        "tiers": {"pretrain": 3 * each, "finetune": 2 * each},
    }
    write_json(root / "manifests" / "filter.json", manifest)
    return root


def write_truth(path: Path, rows: int = 60) -> None:
    targets = [None, None, None, "near_duplicate", "similarity", "http_404"]
    truth = [
        {
            "source": "part.parquet",
            "source_row": n,
            "uid": uid(n),
            "url": "",
            "text": f"alt text of row {n}",
            "kind": targets[n % 6] or "clean",
            "picture": "met/1",
            "target": targets[n % 6],
            "exact": n % 6 == 5,
            "group": f"g{n // 6}" if n % 6 in (0, 3) else None,
            "matched": n % 6 < 3,
            "alpha": None,
            "tiled": None,
        }
        for n in range(rows)
    ]
    write_table(path, pa.Table.from_pylist(truth))


class Page(HTMLParser):
    """Collects what a page would load or run, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.scripts = 0
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_one_safe_page_that_loads_nothing(tmp_path: Path) -> None:
    path = write_report(make_run(tmp_path / "demo" / "run"))
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path == tmp_path / "demo" / "run" / "report.html"
    assert page.scripts == 0
    assert all(load.startswith("data:image/") for load in page.loads)
    assert "http://" not in text.replace("http://h.test/", "").replace("http://www.w3.org/2000/svg", "")
    assert EVIL in page.text  # shown as text
    assert 20 <= len(page.loads) <= 150
    assert len(text) < 2_000_000


def test_it_says_what_the_manifest_says(tmp_path: Path) -> None:
    page = Page(write_report(make_run(tmp_path / "run")).read_text(encoding="utf-8"))
    for words in (
        "60 rows in",
        "30 kept, 50% of the rows",
        "30 dropped, each with a reason",
        "broken.parquet cut",
        "stand-in weights",
        "5f5f5f5f5f5f",
    ):
        assert words in page.text, words
    for reason in ("near_duplicate 10", "similarity 10", "http_404 10"):
        assert reason in page.text


def test_facts_choose_few_rows_each_with_its_picture(tmp_path: Path) -> None:
    facts = gather(make_run(tmp_path / "run"))
    assert list(facts.kept_shots) == ["pretrain", "finetune"]
    assert [len(shots) for shots in facts.kept_shots.values()] == [20, 20]
    assert all(shot.jpeg and shot.text.startswith("words") for shots in facts.kept_shots.values() for shot in shots)
    assert {reason: [bool(shot.jpeg) for shot in shots] for reason, shots in facts.dropped_shots.items()} == {
        "http_404": [False] * 5,
        "near_duplicate": [True] * 5,
        "similarity": [True] * 5,
    }
    assert len(facts.groups) == 8
    assert all([shot.fate for shot in group] == ["kept", "dropped"] for group in facts.groups)


def test_pictures_that_might_offend_are_not_shown(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    path = root / "ledger" / "final" / "00000.parquet"
    table = pq.read_table(path)
    unsafe = [0.9 if reason == "near_duplicate" else 0.1 for reason in table["reason"].to_pylist()]
    renamed = pc.replace_substring(table["reason"], "similarity", "nsfw")
    table = table.append_column("opennsfw", pa.array(unsafe, pa.float32())).append_column(
        "opennsfw_origin", pa.array(["opennsfw"] * 60)
    )
    write_table(path, table.set_column(table.column_names.index("reason"), "reason", renamed))
    facts = gather(root)
    assert not any(shot.jpeg for reason in ("nsfw", "near_duplicate") for shot in facts.dropped_shots[reason])
    assert all(shot.jpeg for shots in facts.kept_shots.values() for shot in shots)


def test_numbers_say_where_they_come_from(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    path = root / "ledger" / "final" / "00000.parquet"
    assert "the number means nothing" not in write_report(root).read_text(encoding="utf-8")
    table = pq.read_table(path).drop_columns("conse_origin")
    origins = ["input" if n % 3 else "conse (stand-in weights)" for n in range(60)]
    write_table(path, table.append_column("conse_origin", pa.array(origins)))
    page = Page(write_report(root).read_text(encoding="utf-8"))
    assert "\u2020 scored with stand-in weights: the number means nothing. * came with the input." in page.text
    shown = {(sign, int(value)) for sign, value in re.findall(r"conse(\u2020|\*|) 0\.(\d\d)", page.text)}
    assert {sign for sign, _ in shown} == {"\u2020", "*"}
    assert all((sign == "*") == bool(value % 3) for sign, value in shown)


def test_a_ledger_without_a_manifest_is_counted(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    (root / "manifests" / "filter.json").unlink()
    facts = gather(root)
    assert (facts.rows_in, facts.kept, facts.dropped) == (
        60,
        30,
        {"http_404": 10, "near_duplicate": 10, "similarity": 10},
    )
    assert facts.tiers == {"finetune": 20, "pretrain": 30}


def test_truth_is_found_beside_the_input_and_only_told_where_it_is(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    assert "Against what was planted" not in write_report(root).read_text(encoding="utf-8")
    write_truth(tmp_path / "my data" / "truth.parquet")
    write_json(
        root / "manifests" / "input.json",
        {"files": [{"url": (tmp_path / "my data" / "input" / "part.parquet").as_uri()}]},
    )
    page = Page(write_report(root).read_text(encoding="utf-8"))
    assert "Against what was planted" in page.text
    assert "planted groups of duplicates with one survivor: 10 of 10" in page.text
    assert "Faults whose reason is certain: 10 of 10 as named" in page.text
    never_came = gather(root, tmp_path / "my data" / "truth.parquet").dropped_shots["http_404"]
    assert {shot.text for shot in never_came} <= {f"alt text of row {n}" for n in range(5, 60, 6)}


def test_training_and_memorising_are_shown_where_they_are(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    train = root / "train" / "pretrain"
    train.mkdir(parents=True)
    lines = [json.dumps({"step": n, "loss": 6 - n / 20}) for n in range(50)]
    (train / "metrics.jsonl").write_text("\n".join([*lines, "half a li"]))
    Image.new("RGB", (40, 40)).save(train / "memorised.png")
    (train / "memorised.json").write_text(
        json.dumps({"pictures": 128, "top1": 0.97, "chance_top1": 1 / 128, "says": "this is memorising"})
    )
    page = Page(write_report(root).read_text(encoding="utf-8"))
    assert (
        "of 128 training captions, 97% gave back a sample nearest to their own picture (chance 0.8%). this is"
        " memorising" in page.text
    )
    assert "step 0 to 49" in page.text
    assert any(load.startswith("data:image/png") for load in page.loads)


def test_any_stage_will_do_and_no_run_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run" / "manifests").mkdir(parents=True)
    assert "has not given its rows a fate yet" in write_report(tmp_path / "run").read_text(encoding="utf-8")
    with pytest.raises(ReportError, match="holds no run"):
        write_report(tmp_path / "nothing")
    assert main([str(tmp_path / "nothing")]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_the_same_facts_give_the_same_page(tmp_path: Path) -> None:
    facts = [gather(make_run(tmp_path / name / "run")) for name in ("a", "b")]
    for one in facts:
        one.name = "run"
    assert render_report(facts[0]) == render_report(facts[1])


def test_the_poster_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    root = make_run(tmp_path / "run")
    write_truth(tmp_path / "truth.parquet")
    assert (
        main([str(root), "--truth", str(tmp_path / "truth.parquet"), "--png", str(tmp_path / "docs" / "report.png")])
        == 0
    )
    assert Image.open(tmp_path / "docs" / "report.png").size == (1680, 1368)
    assert "picture: " in capsys.readouterr().out


def test_reasons_belong_to_steps() -> None:
    assert [group_of(name) for name in ("bad_url", "http_503", "tls", "corrupt", "aesthetic", "in_eval_set")] == [
        "input",
        "fetch",
        "fetch",
        "image",
        "rules",
        "set",
    ]
    assert by_group({"size": 2, "http_404": 1, "tls": 4}) == {"input": 0, "fetch": 5, "image": 0, "rules": 2, "set": 0}
    assert set(report.STEPS) == set(by_group({})) == set(report.GROUP_NAMES)
