"""Say from measures and thresholds which flags each caption has; no text and no model is at hand here."""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioning.gate.config import FLAGS, GateConfig

Bools = np.ndarray[tuple[int], np.dtype[np.bool_]]
Test = Callable[[pa.Table, GateConfig], pa.ChunkedArray]


def _truncated(measures: pa.Table, _: GateConfig) -> pa.ChunkedArray:
    return pc.and_(measures["at_limit"], pc.invert(measures["ends_sentence"]))


def _wrong_language(measures: pa.Table, gate: GateConfig) -> pa.ChunkedArray:
    if not gate.languages:
        return pc.is_in(measures["language"], value_set=pa.array([], pa.string()))
    other = pc.invert(pc.is_in(measures["language"], value_set=pa.array(gate.languages, pa.string()), skip_nulls=True))
    return pc.and_(other, pc.greater_equal(measures["language_score"], gate.min_language_score))


TESTS: Mapping[str, Test] = {
    "empty": lambda measures, gate: pc.equal(measures["characters"], 0),
    "too_short": lambda measures, gate: pc.less(measures["words"], gate.min_words),
    "refusal": lambda measures, gate: measures["refusal"],
    "repeated": lambda measures, gate: pc.greater_equal(measures["repeats"], gate.max_repeats),
    "truncated": _truncated,
    "non_printable": lambda measures, gate: pc.greater(measures["unprintable"], 0),
    "wrong_language": _wrong_language,
    "copies_alt": lambda measures, gate: measures["copies_alt"],
    "over_tokens": lambda measures, gate: pc.greater(measures["t5_tokens"], gate.max_tokens),
}
"""Flag -> what tells it of measures; null where a measure is null, which is no flag."""


def flag_table(measures: pa.Table, gate: GateConfig) -> dict[str, Bools]:
    """Return flag -> whether each caption has it, (N,), in the order of FLAGS; a caption without measures has none."""
    none = np.zeros(measures.num_rows, np.bool_)
    return {flag: _told(TESTS[flag](measures, gate)) if flag in TESTS else none for flag in FLAGS}


def _told(found: pa.ChunkedArray) -> Bools:
    told: Bools = pc.fill_null(found, False).to_numpy(zero_copy_only=False).astype(np.bool_)
    return told
