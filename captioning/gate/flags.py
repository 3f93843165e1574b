"""Say from measures and thresholds which flags each caption has; no text and no model is at hand here."""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioning.gate.config import FLAGS, GateConfig

Bools = np.ndarray[tuple[int], np.dtype[np.bool_]]
LONG_WORDS = 30
"""Words from which on the share of different ones is looked at: short texts repeat few words anyway."""
Test = Callable[[pa.Table, GateConfig], pa.ChunkedArray]


def _truncated(measures: pa.Table, _: GateConfig) -> pa.ChunkedArray:
    return pc.and_(measures["at_limit"], pc.invert(measures["ends_sentence"]))


def _wrong_language(measures: pa.Table, gate: GateConfig) -> pa.ChunkedArray:
    if not gate.languages:
        return pc.is_in(measures["language"], value_set=pa.array([], pa.string()))
    other = pc.invert(pc.is_in(measures["language"], value_set=pa.array(gate.languages, pa.string()), skip_nulls=True))
    return pc.and_(other, pc.greater_equal(measures["language_score"], gate.min_language_score))


def _too_short(measures: pa.Table, gate: GateConfig) -> pa.ChunkedArray:
    few_words = pc.less(measures["words"], gate.min_words)
    few_letters = pc.less(measures["characters"], gate.min_characters)
    return pc.if_else(measures["spaceless"], few_letters, few_words)


def _repeated(measures: pa.Table, gate: GateConfig) -> pa.ChunkedArray:
    again = pc.and_(
        pc.greater_equal(measures["repeats"], gate.max_repeats),
        pc.greater_equal(measures["repeated_share"], gate.min_repeated_share),
    )
    loops = pc.greater_equal(measures["loop"], gate.max_loop)
    same = pc.greater_equal(measures["same_sentences"], gate.max_same_sentences)
    few = pc.and_(
        pc.less(measures["distinct_share"], gate.min_distinct_share), pc.greater_equal(measures["words"], LONG_WORDS)
    )
    return pc.or_(pc.or_(again, loops), pc.or_(same, few))


def _copies_alt(measures: pa.Table, gate: GateConfig) -> pa.ChunkedArray:
    return pc.greater_equal(measures["alt_likeness"], gate.max_alt_likeness)


def _below_alt(measures: pa.Table, gate: GateConfig) -> pa.ChunkedArray:
    return pc.greater(pc.subtract(measures["alt_score"], measures["caption_score"]), gate.margin)


TESTS: Mapping[str, Test] = {
    "empty": lambda measures, gate: pc.equal(measures["characters"], 0),
    "too_short": _too_short,
    "refusal": lambda measures, gate: measures["refusal"],
    "repeated": _repeated,
    "truncated": _truncated,
    "non_printable": lambda measures, gate: pc.greater(measures["unprintable"], 0),
    "wrong_language": _wrong_language,
    "prompt_leak": lambda measures, gate: measures["leak"],
    "boilerplate": lambda measures, gate: measures["boilerplate"],
    "copies_alt": _copies_alt,
    "over_tokens": lambda measures, gate: pc.greater(measures["t5_tokens"], gate.max_tokens),
    "lost_names": lambda measures, gate: pc.greater(measures["lost_names"], gate.max_lost_names),
    "invented_names": lambda measures, gate: pc.greater(measures["invented_names"], gate.max_invented_names),
    "lost_numbers": lambda measures, gate: pc.greater(measures["lost_numbers"], gate.max_lost_numbers),
    "invented_numbers": lambda measures, gate: pc.greater(measures["invented_numbers"], gate.max_invented_numbers),
    "below_alt": _below_alt,
}
"""Flag -> what tells it of measures; null where a measure is null, which is no flag."""


def flag_table(measures: pa.Table, gate: GateConfig) -> dict[str, Bools]:
    """Return flag -> whether each caption has it, (N,), in the order of FLAGS; a caption without measures has none."""
    none = np.zeros(measures.num_rows, np.bool_)
    return {flag: _told(TESTS[flag](measures, gate)) if flag in TESTS else none for flag in FLAGS}


def _told(found: pa.ChunkedArray) -> Bools:
    told: Bools = pc.fill_null(found, False).to_numpy(zero_copy_only=False).astype(np.bool_)
    return told
