"""Go once through the captions of one captioner, and say what came out of it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioning.corpus.bias import Mentions
from captioning.corpus.intervals import share
from captioning.corpus.leaks import Leaks
from captioning.corpus.lengths import Lengths, VocabularyFacts, vocabulary
from captioning.corpus.samples import SmallestUids
from captioning.corpus.skeletons import Frequent, grams, is_shift, shown
from captioning.corpus.terms import people_terms
from captioning.corpus.words import Words
from manifests.weights import WeightsError
from pipeline.analysis.caption_facts import CaptionerAudit, Ending, Languages, Leak, Repeated, Repeats, Skeleton
from pipeline.analysis.caption_rows import Counted, caption_at, caption_pieces, picture_keys

if TYPE_CHECKING:
    import duckdb

EXAMPLES = 3
END_WORDS = 4
"""Words of an opening and of a closing."""
SAMPLE_ROWS = 20_000
"""Captions whose languages and vocabulary are looked at."""
SAMPLE_WORDS = 200_000
CANDIDATES = 50
"""Frequent runs of words that are looked at for each one that is shown: most are parts of one longer run."""
WORD_BITS = 12
"""Bits that say with which word of its caption a run begins."""
PICTURES = """
    SELECT key, sum(n)::BIGINT AS captions, count(*) AS pictures, min(place) AS place
    FROM (SELECT key, phash, count(*) AS n, min(place) AS place FROM said GROUP BY key, phash)
    GROUP BY key HAVING count(*) > 1"""
Flags = np.ndarray[Any, np.dtype[np.bool_]]


class CaptionReader:
    """Goes once through the captions of one captioner."""

    def __init__(
        self,
        root: Path,
        name: str,
        paths: list[Path],
        prompts: Mapping[str, str],
        connection: "duckdb.DuckDBPyConnection",
    ) -> None:
        self.root, self.name, self.paths, self.connection = root, name, paths, connection
        self.counted, self.own = Counted(), 0
        self.skeletons, self.leaks = Frequent(), Leaks(prompts, EXAMPLES)
        self.mentions, self.sample = Mentions(people_terms(), EXAMPLES), SmallestUids(SAMPLE_ROWS)
        self.lengths = {kind: Lengths() for kind in ("caption", "alt", "top_caption")}
        self._twins = self._same_pictures()
        columns = "key UBIGINT, opening UBIGINT, closing UBIGINT, phash UBIGINT, place BIGINT"
        connection.execute(f"CREATE OR REPLACE TEMP TABLE said ({columns})")
        for piece in caption_pieces(root, paths, self.counted):
            self._add(piece)

    def _same_pictures(self) -> pa.Array:
        """Return the uids of pictures that have the pHash of one with a smaller uid: skeletons pass them over."""
        self.connection.execute("CREATE OR REPLACE TEMP TABLE seen (phash UBIGINT, uid BLOB)")
        for piece in caption_pieces(self.root, self.paths, Counted(), texts=False):
            self._insert("seen", pa.table({"phash": picture_keys(piece), "uid": piece["uid"].cast(pa.binary())}))
        query = "SELECT uid FROM seen QUALIFY row_number() OVER (PARTITION BY phash ORDER BY uid) > 1"
        found = self.connection.execute(query).to_arrow_table()["uid"].combine_chunks()
        self.connection.execute("DROP TABLE seen")
        return found.cast(pa.binary(16))

    def _insert(self, name: str, table: pa.Table) -> None:
        self.connection.register("piece", table)
        self.connection.execute(f"INSERT INTO {name} SELECT * FROM piece")
        self.connection.unregister("piece")

    def _add(self, piece: pa.Table) -> None:
        texts, uids = piece["caption"].combine_chunks(), piece["uid"].combine_chunks()
        words = Words.of(texts)
        self.own += len(words)
        self.lengths["caption"].add(words.counts)
        self._repeats(piece, words)
        self._skeletons(piece, words)
        self.leaks.add(texts, uids)
        self.sample.add(piece.select(["uid", "caption", "text", "top_caption"]))
        both = piece.filter(pc.is_valid(piece["text"]))
        alt, top = (column.combine_chunks() for column in (both["text"], piece["top_caption"].drop_null()))
        named, given = Words.of(alt), Words.of(top)
        self.lengths["alt"].add(named.counts)
        self.lengths["top_caption"].add(given.counts)
        said = words if both.num_rows == piece.num_rows else Words.of(both["caption"].combine_chunks())
        self.mentions.add(named, said, both["uid"].combine_chunks())
        self.mentions.add_top(given)

    def _repeats(self, piece: pa.Table, words: Words) -> None:
        columns = {
            "key": words.text_keys(),
            "opening": words.run_keys(END_WORDS),
            "closing": words.run_keys(END_WORDS, closing=True),
            "phash": picture_keys(piece),
            "place": piece["place"],
        }
        self._insert("said", pa.table(columns).filter(pc.is_valid(columns["key"])))

    def _skeletons(self, piece: pa.Table, words: Words) -> None:
        keys, texts, begins = grams(words)
        places = piece["place"].to_numpy()[texts]
        if len(self._twins):
            first = ~flags(pc.is_in(piece["uid"].combine_chunks(), value_set=self._twins))[texts]
            keys, texts, begins, places = keys[first], texts[first], begins[first], places[first]
        # the word of its text that a run begins with, in the bits that number of table and row leave free
        word = np.minimum(begins - words.first[texts], (1 << WORD_BITS) - 1)
        self.skeletons.add(keys, texts, (places << WORD_BITS) | word)

    def facts(self, top: int) -> CaptionerAudit:
        """Return what came out of it."""
        mentions, counted = self.mentions.facts(), self.counted
        return CaptionerAudit(
            captioner=self.name,
            rows=counted.rows,
            own=self.own,
            origins=_ordered(counted.origins),
            dropped=_ordered(counted.dropped),
            flags=_ordered(counted.flags),
            repeats=self._repeated(top),
            skeletons=tuple(self._top_skeletons(top)),
            openings=tuple(self._endings("opening", top)),
            closings=tuple(self._endings("closing", top)),
            leaks=tuple(Leak(what, n, tuple(uid.hex() for uid in uids)) for what, n, uids in self.leaks.found()),
            leaked=share(self.leaks.captions, self.own),
            lengths={kind: facts for kind, one in self.lengths.items() if (facts := one.facts())},
            vocabulary=self._vocabulary(),
            languages=self._languages(top),
            compared=self.mentions.rows,
            mentions=tuple(mentions),
            apart=sum(one.apart for one in mentions),
        )

    def _repeated(self, top: int) -> Repeats:
        totals = self.connection.execute(f"SELECT count(*), coalesce(sum(captions), 0)::BIGINT FROM ({PICTURES})")
        texts, captions = totals.fetchone() or (0, 0)
        query = f"{PICTURES} ORDER BY pictures DESC, key LIMIT {top}"
        found = []
        for _, count, pictures, place in self.connection.execute(query).fetchall():
            uid, text = caption_at(self.paths, place)
            found.append(Repeated(text, count, pictures, uid.hex()))
        return Repeats(texts, share(captions, self.own), tuple(found))

    def _top_skeletons(self, top: int) -> Iterator[Skeleton]:
        """Yield the most frequent runs of words, parts of a longer run that was seen before left out."""
        seen: list[tuple[str, ...]] = []
        given, last = 0, (1 << WORD_BITS) - 1
        candidates = list(islice(self.skeletons.top(), CANDIDATES * top))
        for count, missed, example in sorted(candidates, key=lambda one: (-one[0], one[2] & last)):  # the start first
            if given == top:
                return
            uid, text = caption_at(self.paths, example >> WORD_BITS)
            run = tuple(shown(Words.of(pa.array([text])), example & last))
            if not any(is_shift(run, other) for other in seen):
                given += 1
                yield Skeleton(" ".join(run), count, missed, share(count, self.own), uid.hex())
            seen.append(run)

    def _endings(self, column: str, top: int) -> Iterator[Ending]:
        query = f"""
            SELECT count(*), min(place) FROM said GROUP BY {column} HAVING count(*) > 1
            ORDER BY 1 DESC, {column} LIMIT {top}"""
        for count, place in self.connection.execute(query).fetchall():
            uid, text = caption_at(self.paths, place)
            words = Words.of(pa.array([text]))
            whole = [words.lower[number] for number in words.index]
            cut = whole[-END_WORDS:] if column == "closing" else whole[:END_WORDS]
            yield Ending(" ".join(cut), share(count, self.own), uid.hex())

    def _vocabulary(self) -> dict[str, VocabularyFacts]:
        sample = self.sample.table()
        kinds = {"caption": "caption", "alt": "text", "top_caption": "top_caption"}
        texts = {kind: sample[name].to_pylist() for kind, name in kinds.items() if name in sample.column_names}
        return vocabulary(texts, SAMPLE_WORDS)

    def _languages(self, top: int) -> Languages | None:
        """Return the languages of the sample's pictures with both texts, none where their detector is missing."""
        from filters.language import detect

        sample = self.sample.table()
        both = sample.filter(pc.is_valid(sample["text"])) if "text" in sample.column_names else sample.slice(0, 0)
        texts: list[Sequence[str | None]] = [
            both[name].to_pylist() if both.num_rows else [] for name in ("text", "caption")
        ]
        try:
            alt, said = (detect(one)[0] for one in texts)
        except WeightsError:
            return None
        pairs = [(one, other) for one, other in zip(alt, said, strict=True) if one and other]
        shifts = Counter(pair for pair in pairs if pair[0] != pair[1])
        by_count = sorted(shifts.items(), key=lambda item: (-item[1], item[0]))
        return Languages(
            len(pairs),
            _ordered(Counter(one for one, _ in pairs)),
            _ordered(Counter(other for _, other in pairs)),
            share(shifts.total(), len(pairs)),
            tuple((one, other, count) for (one, other), count in by_count[:top]),
        )


def flags(column: pa.Array | pa.ChunkedArray) -> Flags:
    """Return a column of truth values, none of them null, for numpy."""
    return np.asarray(column.to_numpy(zero_copy_only=False), bool)


def _ordered(counts: Counter[str]) -> dict[str, int]:
    """Return counts by size, then name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
