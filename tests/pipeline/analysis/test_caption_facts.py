"""The figures of an audit become JSON as they stand, in the order of the code."""

import json
from dataclasses import asdict, fields

from captioning.corpus.intervals import share
from pipeline.analysis.caption_facts import Audit, CaptionerAudit, FilterAudit, Repeats


def empty(captioner):
    """Return an audit of no captions."""
    nothing = {"origins": {}, "dropped": {}, "flags": {}, "lengths": {}, "vocabulary": {}}
    lists = dict.fromkeys(("skeletons", "openings", "closings", "leaks", "mentions"), ())
    counts = dict.fromkeys(("rows", "own", "compared", "apart"), 0)
    repeats = Repeats(0, share(0, 0), ())
    return CaptionerAudit(captioner, repeats=repeats, leaked=share(0, 0), languages=None, **nothing, **lists, **counts)


def test_an_audit_is_plain():
    found = Audit("/run", (empty("llava"),), FilterAudit(0, share(0, 0), "aesthetic_v2", (), 0))
    told = json.loads(json.dumps(asdict(found)))
    assert (
        list(told) == [field.name for field in fields(Audit)] == ["run", "captioners", "filter", "by_chance", "notes"]
    )
    assert told["captioners"][0]["repeats"] == {
        "texts": 0,
        "captions": {"hits": 0, "of": 0, "rate": None, "low": None, "high": None},
        "top": [],
    }
