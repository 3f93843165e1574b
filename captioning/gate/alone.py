"""Judge one caption by its text alone, for those who ask a captioner from Python."""

from captioning.gate.config import GateConfig
from captioning.gate.flags import flag_table
from captioning.gate.measures import Said, Tools, measure


def caption_flags(text: str, *, at_limit: bool = False, gate: GateConfig | None = None) -> tuple[str, ...]:
    """Return the flags of a caption, in the order of FLAGS; none for a good one.

    What needs the alt text, a tokenizer, a detector or a scorer is not told.

    `at_limit` tells that generation stopped at its token limit and not by itself.
    """
    measures = measure(Said([text], [at_limit], [None], [None], [()]), Tools())
    return tuple(flag for flag, has in flag_table(measures, gate or GateConfig()).items() if has[0])
