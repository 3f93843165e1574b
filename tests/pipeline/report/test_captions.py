"""The section of captions: tables of the audit, safe to show, only where there are captions."""

import random

from manifests.files import write_json
from pipeline.report.captions import captions_section, read_captions
from pipeline.report.facts import gather
from pipeline.report.render import render_report, write_report
from tests.support.caption_runs import Row, filler, write_captions
from tests.support.report_runs import EVIL, write_run


def captioned(root, rows=80):
    """Write a run of captions half of which are EVIL; return its folder."""
    draw = random.Random(2)
    made = [
        Row(
            n,
            text=f"a woman {EVIL}",
            captions={"llava": EVIL if n % 2 else f"a man {filler(draw)}"} if n % 4 else {},
            reason=None if n % 4 else "aesthetic",
            aesthetic=5.0,
        )
        for n in range(rows)
    ]
    write_json(root / "manifests" / "input.json", {"files": []})
    return write_captions(root, made)


def test_every_table_stands_in_the_page(tmp_path):
    section = captions_section(read_captions(captioned(tmp_path)))
    (part,) = section.captioners
    assert (part.name, part.says) == ("llava", "60 of 60 rows have a caption in its own words")
    tables = {table.title: table for table in part.tables}
    assert list(tables) == [
        "What became of them",
        "One caption beside several pictures",
        "How captions begin and end",
        "Length and vocabulary",
        *(["Language of alt text and caption"] if "Language of alt text and caption" in tables else []),
        "Groups of people in alt text and caption",
    ]
    assert tables["One caption beside several pictures"].rows == ((EVIL, "40", "40"),)
    assert tables["Groups of people in alt text and caption"].rows[0][0] == "gender: women *"
    assert section.filter.rows[0][:2] == ("gender: women", "80")
    assert all(len(row) == len(table.heads) for table in (*part.tables, section.filter) for row in table.rows)


def test_strangers_words_are_text_on_the_page(tmp_path):
    page = render_report(gather(captioned(tmp_path / "run")))
    assert "<script" not in page
    assert "<h2>Captions</h2>" in page
    assert "&lt;script&gt;" in page


def test_without_captions_and_with_damaged_ones_there_is_no_section(tmp_path):
    root = write_run(tmp_path)
    assert read_captions(root) is None
    assert captions_section(None) is None
    assert "<h2>Captions</h2>" not in write_report(root).read_text()
    (root / "captions").mkdir()
    (root / "captions" / "llava-00000.parquet").write_bytes(b"PAR1")
    assert read_captions(root) is None
    assert "<h2>Captions</h2>" not in write_report(root).read_text()
