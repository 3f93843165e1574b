"""manifests/findings.py: which findings are faults, what is lost, and what cures it."""

from manifests.findings import Finding, Records, with_cure


def test_notes_are_no_faults():
    kinds = ("missing", "damaged", "foreign", "stale", "leftover", "unproved", "unfinished")
    assert [Finding("a", kind, "").wrong for kind in kinds] == [True] * 4 + [False] * 3


def test_a_manifest_is_lost_with_its_table(tmp_path):
    records = Records(tmp_path)
    assert not records.lost("filter")
    records.find("manifests/filter.parquet", "damaged", "?")
    assert records.lost("filter")
    assert not records.lost("caption")


def test_records_are_unread_where_both_tables_are(tmp_path):
    records = Records(tmp_path)
    records.find(tmp_path / "manifests" / "journal" / "score.parquet", "damaged", "?", "score")
    assert not records.unread("score")
    records.find("manifests/journal/score.copy.parquet", "unfinished", "?", "score")
    assert not records.unread("score")
    records.find("manifests/journal/score.copy.parquet", "missing", "?", "score")
    assert records.unread("score")


def test_what_a_manifest_alone_names_is_cured_by_its_stage():
    lost = Finding("a", "missing", "not there, though manifests/filter.json names it", "fetch", "0")
    behind = Finding("manifests/filter.json", "stale", "lists other files", "select")
    assert with_cure([lost]) == [lost]
    assert with_cure([lost, behind])[0].says.endswith(
        "; the journal of select was changed since: pipeline run --stage filter ends what was begun"
    )
