"""Judge the captions of a run as a whole, from what is stored: no model runs, nothing is written.

Captions are read once, in pieces. What memory holds: a piece, counts by length and term, skeletons that come often, and
a sample. What grows with the captions is a table of 40 bytes a caption, which DuckDB spills into the run folder beyond
`output.memory_limit`.
"""

from pathlib import Path

import pyarrow.compute as pc

from captioning.corpus.bias import KeptByGroup
from captioning.corpus.terms import people_terms
from captioning.corpus.words import Words
from captioning.prompts import PROMPTS
from manifests.files import read_field
from manifests.journal import records_of
from manifests.query import connect
from pipeline.analysis.caption_facts import Audit, FilterAudit
from pipeline.analysis.caption_reader import EXAMPLES, CaptionReader, flags
from pipeline.analysis.caption_rows import aesthetic_column, caption_tables, first_tables, had_picture, ledger_pieces
from pipeline.recipes.schema import RecipeError

TOP = 10


def audit(root: Path, captioner: str | None = None, top: int = TOP, most_rows: int | None = None) -> Audit:
    """Return what there is to say of a run's captions; `most_rows`: of the first tables that hold so many.

    Raises RecipeError where there are no captions, or none of that captioner.
    """
    tables = caption_tables(root)
    if not tables:
        raise RecipeError(f"audit captions: {str(root)!r} holds no captions; first: pipeline run --stage caption")
    if captioner is not None and captioner not in tables:
        raise RecipeError(f"audit captions: no captions of {captioner!r} in {root}; captioners: {', '.join(tables)}")
    names = [captioner] if captioner is not None else sorted(tables)
    cut = {name: first_tables(tables[name], most_rows) for name in names}
    notes = [
        f"{name}: the first {len(cut[name]):,} of {len(tables[name]):,} tables are looked at"
        for name in names
        if len(cut[name]) < len(tables[name])
    ]
    notes += [
        f"{record.files[0].path} is missing: its {record.rows_in:,} pictures are not looked at (pipeline repair {root})"
        for record in records_of(root, "judge")
        if record.shard.rpartition("-")[0] in names and not (root / record.files[0].path).exists()
    ]
    prompts = prompts_of(root)
    with connect(root) as connection:
        found = tuple(CaptionReader(root, name, cut[name], prompts, connection).facts(top) for name in names)
    if any(one.languages is None for one in found):
        notes.append("languages are not told: their detector is not installed (pip install 'tessera-t2i[score]')")
    return Audit(str(root), found, audit_filter(root, most_rows), notes=tuple(notes))


def prompts_of(root: Path) -> dict[str, str]:
    """Return the prompts that captioners may have been asked with: ours, and those of the run's recipe."""
    found = {name: prompt.text for name, prompt in PROMPTS.items()}
    try:
        caption = read_field(root / "manifests" / "recipe.json", "recipe", dict).get("caption", {})
        own = caption.get("prompts", {})
        return found | {name: str(one.get("text", "")) for name, one in own.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return found


def audit_filter(root: Path, most_rows: int | None = None) -> FilterAudit:
    """Return which groups of people the filter keeps more often, by the alt texts of all rows that have one."""
    column, groups = aesthetic_column(root), KeptByGroup(people_terms(), EXAMPLES)
    for piece in ledger_pieces(root, most_rows, column):
        reasons = piece["reason"].combine_chunks()
        scores = piece["aesthetic"].to_numpy().astype(float)
        judged, kept = flags(had_picture(reasons)), flags(pc.is_null(reasons))
        groups.add(Words.of(piece["text"].combine_chunks()), judged, kept, scores, piece["uid"].combine_chunks())
    facts = groups.facts()
    return FilterAudit(groups.rows, groups.kept_share, column, tuple(facts), sum(one.apart for one in facts))
