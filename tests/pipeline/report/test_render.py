"""The page: whatever a run folder holds, in one file that is safe to open and loads nothing."""

import re
import secrets
import sys
import tomllib
from dataclasses import replace
from fnmatch import fnmatch
from html.parser import HTMLParser

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.extras import MissingExtra
from manifests.files import write_table
from manifests.store import path_of
from manifests.weights import WeightsFile
from pipeline.report.examples import Example, Examples, Score
from pipeline.report.facts import Facts, Fates, Prediction, Stages, gather
from pipeline.report.pictures import Picture
from pipeline.report.render import ReportError, gather_run, main, render_report, templates, write_report
from pipeline.report.training import LossCurve, Memorised, Training
from tests.support.paths import ROOT
from tests.support.report_runs import EVIL, flat_jpeg, write_input_record, write_run, write_training, write_truth
from tests.support.stored_runs import upload

SAFE = "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;"
"""EVIL as it must stand in the page."""


class Page(HTMLParser):
    """Collects what a page would load or run, its tags, and its text."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.tags, self.handlers, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_at(root, truth=None):
    return Page(write_report(root, truth).read_text(encoding="utf-8"))


@pytest.fixture
def sixty(tmp_path):
    return write_run(tmp_path / "demo" / "run")


def test_one_safe_page_that_loads_nothing(sixty):
    path = write_report(sixty)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path == sixty / "report.html"
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert not {"script", "a", "link", "iframe", "form", "base"} & set(page.tags)
    assert page.handlers == []
    assert all(load.startswith("data:image/jpeg;base64,") for load in page.loads)
    assert "http://" not in text.replace("http://h.test/", "")
    assert "url(" not in text
    assert EVIL in page.text  # shown as text
    assert 20 <= len(page.loads) <= 150
    assert len(text) < 2_000_000


def test_it_says_what_the_manifest_says(sixty):
    page = page_at(sixty)
    for words in (
        "Tessera demo/run What became of every row. some numbers come from stand-in weights: see the end",
        "60 rows in",
        "30 kept, 50% of the rows",
        "30 dropped, each with a reason",
        "20 in tier finetune",
        "digests: filter 5f5f5f5f5f5f",
        "the picture arrived 50 \u221210",
        "broken.parquet cut",
        "near_duplicate 10 duplicates and set",
        "similarity 10 rule",
        "http_404 10 fetch http://h.test/",
        "aesthetic_v2 stand-in weights abababababababab… open_nsfw cdcdcdcdcdcdcdcd…",
    ):
        assert words in page.text, words


def hostile():
    """Return facts in which every word that a stranger can choose is markup."""
    address = "javascript:alert('1')\"onerror=\"alert(1)"
    row = Example("1", EVIL, address, "kept", EVIL, (Score(EVIL, 1.0, "input"),), flat_jpeg(1), f"recaptioned: {EVIL}")
    twin = replace(row, uid="2", fate="dropped")
    blank = replace(twin, uid="3", jpeg=b"", reason="bad_url")
    return Facts(
        EVIL,
        Stages(
            {EVIL: EVIL},
            (WeightsFile(EVIL, EVIL),),
            Fates(3, 1, {EVIL: 1, "bad_url": 1}, {EVIL: 1}),
            (EVIL,),
        ),
        (Prediction(EVIL, EVIL, EVIL),),
        Examples({EVIL: (row,)}, {EVIL: (twin,), "bad_url": (blank,)}, ((row, twin),)),
        training=Training(
            (LossCurve(EVIL, ((0.0, 1.0), (1.0, 2.0)), ((1.0, 3.0),)),),
            (Memorised(EVIL, 1, 1.0, 0.5, EVIL),),
            (Picture(b"\x89PNG", EVIL),),
        ),
    )


def test_words_of_strangers_are_escaped_wherever_they_stand():
    text = render_report(hostile(), f"# {EVIL}")
    page = Page(text)
    assert "<script" not in text
    assert "script" not in page.tags
    assert page.handlers == []
    assert f"<title>Tessera: {SAFE}</title>" in text
    assert f'alt="{SAFE}"' in text
    assert f'<div class="words">{SAFE}</div>' in text
    assert f'<div class="words soft" style="margin-top:4px">recaptioned: {SAFE}</div>' in text
    assert f"<span>{SAFE}* <b>1.00</b></span>" in text
    assert "<code>javascript:alert(&#39;1&#39;)&#34;onerror=&#34;alert(1)</code>" in text
    assert f"<td>{SAFE}</td>" in text
    assert "held out (validation), 3.00 at the end" in text
    assert f"<footer>{SAFE}</footer>" in text
    assert "javascript:" not in " ".join(page.loads)


def test_controls_and_overrides_of_strangers_stand_nowhere():
    odd, shown = "a\0b\x1bc\u202ed\u2067", "a\ufffdb\ufffdc\ufffdd\ufffd"
    row = Example("1", f"caption {odd}", f"http://h.test/{odd}", "kept", "", (), flat_jpeg(1), f"recaptioned: {odd}")
    blank = replace(row, uid="2", fate="dropped", reason="bad_url", jpeg=b"")
    facts = replace(hostile(), examples=Examples({"all": (row,)}, {"bad_url": (blank,)}, ()))
    text = render_report(facts, f"# Credits {odd}")
    assert not re.search(r"[\0\x1b\u202e\u2067]", text)
    assert f'alt="caption {shown}"' in text
    assert f'<div class="words">caption {shown}</div>' in text
    assert f"recaptioned: {shown}</div>" in text
    assert f"<code>http://h.test/{shown}</code>" in text
    assert f"<footer>Credits {shown}</footer>" in text


def test_the_lines_of_credits_stay_as_they_are(sixty):
    (sixty / "ATTRIBUTION.md").write_text("# Credits\n\n  Met & <i>Museum</i>\n")
    text = write_report(sixty).read_text(encoding="utf-8")
    assert "<footer>Credits\n\n  Met &amp; &lt;i&gt;Museum&lt;/i&gt;\n</footer>" in text


def test_numbers_say_where_they_come_from(sixty):
    path = sixty / "ledger" / "final" / "00000.parquet"
    assert "the number means nothing" not in page_at(sixty).text
    table = pq.read_table(path).drop_columns("conse_origin")
    origins = ["input" if n % 3 else "conse (stand-in weights)" for n in range(60)]
    write_table(path, table.append_column("conse_origin", pa.array(origins)))
    page = page_at(sixty)
    assert "† scored with stand-in weights: the number means nothing. * came with the input." in page.text
    shown = {(sign, int(value)) for sign, value in re.findall(r"conse(†|\*|) 0\.(\d\d)", page.text)}
    assert {sign for sign, _ in shown} == {"†", "*"}
    assert all((sign == "*") == bool(value % 3) for sign, value in shown)


def test_truth_is_found_beside_the_input_and_only_told_where_it_is(sixty, tmp_path):
    assert "Against what was planted" not in page_at(sixty).text
    folder = tmp_path / "my data"
    write_truth(folder / "truth.parquet")
    write_input_record(sixty, folder)
    page = page_at(sixty)
    assert "similarity 10 10 0 0 0 100% 100%" in page.text
    assert "planted groups of duplicates with one survivor: 10 of 10" in page.text
    assert "Faults whose reason is certain: 10 of 10 as named http_404 10/10" in page.text
    # row n scores n / 100, the first three of every six are matched: they win where their six come later, 45 of 100
    assert "conse: a picture's own words beat swapped ones in 45% of pairs (30 pictures against 30)" in page.text
    assert gather_run(sixty) == gather(sixty, folder / "truth.parquet")


def test_training_and_memorising_are_shown_where_they_are(sixty):
    write_training(sixty)
    page = page_at(sixty)
    assert (
        "pretrain: of 128 training captions, 97% gave back a sample nearest to their own picture (chance 0.8%). this is"
        " memorising" in page.text
    )
    assert "6.2 3.55 step 0 to 49 loss" in page.text
    assert [load for load in page.loads if load.startswith("data:image/png;base64,iVBOR")] != []


def test_any_stage_will_do_and_no_run_is_an_error(tmp_path, capsys):
    (tmp_path / "run" / "manifests").mkdir(parents=True)
    assert "has not given its rows a fate yet" in page_at(tmp_path / "run").text
    with pytest.raises(ReportError, match="holds no run"):
        write_report(tmp_path / "nothing")
    assert main([str(tmp_path / "nothing")]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_the_same_facts_give_the_same_page(tmp_path):
    pages = [render_report(replace(gather(write_run(tmp_path / name / "run")), name="run")) for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_of_a_run_in_a_store_the_page_is_the_same_and_lies_there(sixty, tmp_path, capsys):
    write_truth(tmp_path / "truth.parquet")
    stored = upload(sixty, path_of(f"memory://{secrets.token_hex(4)}/demo/run"))
    assert main([str(stored), "--truth", str(tmp_path / "truth.parquet")]) == 0
    assert capsys.readouterr().out == f"report: {stored}/report.html\n"
    main([str(sixty), "--truth", str(tmp_path / "truth.parquet")])
    assert (stored / "report.html").read_bytes() == (sixty / "report.html").read_bytes()
    assert main(["s3:/bucket/run"]) == 2


def test_the_command_writes_the_page_and_the_picture(sixty, tmp_path, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr("pipeline.report.poster.draw_poster", lambda facts, path: drawn.append(facts) or path)
    write_truth(tmp_path / "truth.parquet")
    picture = tmp_path / "docs" / "report.png"
    assert main([str(sixty), "--truth", str(tmp_path / "truth.parquet"), "--png", str(picture)]) == 0
    assert capsys.readouterr().out == f"report: {sixty / 'report.html'}\npicture: {picture}\n"
    assert drawn == [gather(sixty, tmp_path / "truth.parquet")]


def test_a_name_that_nobody_gave_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="'page' is undefined"):
        templates().get_template("report.html.j2").render()


def test_without_jinja_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    templates.cache_clear()
    with pytest.raises(MissingExtra, match=r"'jinja2' is not installed.*tessera-t2i\[report\]"):
        render_report(Facts("run"))


def test_templates_travel_with_the_package():
    folder = ROOT / "pipeline" / "report"
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    names = [path.relative_to(folder).as_posix() for path in (folder / "templates").rglob("*")]
    assert {"templates/report.html.j2", "templates/style.css"} < set(names)
    assert [name for name in names if not any(fnmatch(name, each) for each in patterns["pipeline.report"])] == []


def test_no_template_calls_what_it_shows_safe():
    for path in (ROOT / "pipeline" / "report" / "templates").iterdir():
        assert re.search(r"\|\s*safe|autoescape", path.read_text()) is None, path.name
    for path in (ROOT / "pipeline" / "report").glob("*.py"):
        assert re.search(r"Markup|</\w", path.read_text()) is None, path.name
