"""caption / measure: what is measured of each attempt, numbers without thresholds, so that judging needs no text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from captioning.gate.measures import MEASURE_VERSION, MEASURES, Said, Tools, measure
from captioning.gate.sentences import sentence_ends
from captioning.prompts import prompt_named
from manifests.files import digest_of, read_table, write_table
from manifests.journal import FileRecord, ShardRecord, records_of
from manifests.plans import plan_digests
from manifests.schema import schema
from manifests.weights import WeightsError, WeightsFile
from pipeline.execution.in_flight import InFlight
from pipeline.execution.step import Step, Unit
from pipeline.recipes.captions import captioners, prompts_of
from pipeline.recipes.schema import Recipe
from pipeline.steps.caption import texts_of_shard
from pipeline.steps.caption_scores import CaptionScores, Scores
from pipeline.steps.kept_pairs import unit_pairs

if TYPE_CHECKING:
    from tokenize_shards.text import T5Tokens

MEASURED = pa.schema(
    [
        *schema("uid"),
        *MEASURES,
        pa.field("sentence_ends", pa.list_(pa.int32()), metadata={"says": "characters up to each sentence's end"}),
        pa.field(
            "sentence_tokens",
            pa.list_(pa.int32()),
            metadata={"says": "tokens of the text up to each, of the text encoder; null without its tokenizer"},
        ),
        *schema("reason"),
    ]
)
"""`captions/measures/*.parquet` and `captions/remeasures/*.parquet`: a row per attempt."""
NOT_MEASURED = {
    "tokens": "weights of T5 are not at hand (pretokenize.t5_weights = {weights!r}): no caption is over_tokens",
    "languages": "the language detector is not at hand: no caption is wrong_language",
}
"""What follows where a tool is not at hand."""


@dataclass(frozen=True)
class Measure(Step):
    """Units are those of the attempts: (captioner, shard of pairs)."""

    name: ClassVar[str] = "measure"
    version: ClassVar[int] = 1
    of: ClassVar[str] = "caption"
    """Step whose attempts are measured."""
    folder: ClassVar[str] = "measures"
    on_card: ClassVar[bool] = True

    def settings(self) -> dict[str, Any]:
        """Return what the measures depend on beside the words: their version, and who counts tokens and knows
        languages, where they are at hand."""
        if not captioners(self.recipe):
            return {}
        tools = {name: file.sha256 if file else None for name, file in measured_with(self.recipe).items()}
        return {"measures": MEASURE_VERSION, **tools, **CaptionScores(self.recipe).settings()}

    def weights(self) -> tuple[WeightsFile, ...]:
        """Return the weights of the scorer that holds captions beside alt texts, where there is one."""
        return CaptionScores(self.recipe).weights() if captioners(self.recipe) else ()

    def notes(self) -> list[str]:
        """Say what cannot be measured here."""
        if not captioners(self.recipe):
            return []
        lacking = [name for name, file in measured_with(self.recipe).items() if file is None]
        weights = self.recipe.pretokenize.t5_weights
        return [
            f"{self.name}: {NOT_MEASURED[name].format(weights=weights)}" for name in lacking if self.of == "caption"
        ]

    def plan(self) -> list[Unit]:
        """Take the attempts as they lie."""
        planned = plan_digests(self.root, "fetch")
        units = []
        for record in records_of(self.root, self.of):
            shard = record.shard.rpartition("-")[2]
            reads = {"attempts": record.files[0].path, "shard": shard, "tar": f"pairs/{shard}.tar"}
            units.append(Unit(record.shard, reads, digest_of([record.content, planned.get(shard, "")])))
        return units

    def open(self) -> "MeasureWorker":
        """Load who counts tokens and knows languages."""
        return MeasureWorker(self)


@dataclass(frozen=True)
class Remeasure(Measure):
    """The same of second attempts."""

    name: ClassVar[str] = "remeasure"
    of: ClassVar[str] = "recaption"
    folder: ClassVar[str] = "remeasures"


@dataclass(frozen=True)
class MeasureWorker:
    """Measures the attempts of one shard."""

    step: Measure
    opened: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def tools(self) -> Tools:
        """Return who counts tokens and knows languages."""
        found = measured_with(self.step.recipe)
        return Tools(
            languages=_languages if found["languages"] else None,
            tokens=self.tokens.counts if self.tokens else None,
        )

    @cached_property
    def tokens(self) -> "T5Tokens | None":
        """Return the text encoder's tokenizer, where it is at hand."""
        if measured_with(self.step.recipe)["tokens"] is None:
            return None
        from tokenize_shards.text import T5Tokens

        return T5Tokens(self.step.recipe.pretokenize.t5_weights)

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `captions/measures/NAME.parquet`."""
        root = self.step.root
        with in_flight.working_on(unit.name, ()):
            attempts = read_table(
                root / unit.reads["attempts"], ["uid", "prompt", "text", "at_limit", "reason"]
            ).combine_chunks()
            alts, tops = texts_beside(attempts["uid"], texts_of_shard(root, unit.reads["shard"]))
            named = {name: prompt_named(name, prompts_of(self.step.recipe)) for name in _names(attempts["prompt"])}
            prompts = [named[name].own_words if name in named else () for name in attempts["prompt"].to_pylist()]
            texts = attempts["text"].to_pylist()
            scores = self._scores(unit, attempts["uid"].to_pylist(), texts, alts)
            found = measure(Said(texts, attempts["at_limit"].to_pylist(), alts, tops, prompts, scores), self.tools)
            ends = [sentence_ends(text) if text is not None else None for text in texts]
            columns = {
                "uid": attempts["uid"],
                **{name: found[name] for name in found.column_names},
                "sentence_ends": pa.array(ends, MEASURED.field("sentence_ends").type),
                "sentence_tokens": pa.array(self._counted(texts, ends), MEASURED.field("sentence_tokens").type),
                "reason": attempts["reason"],
            }
            path = root / "captions" / self.step.folder / f"{unit.name}.parquet"
            write_table(path, pa.table(columns).select(MEASURED.names).cast(MEASURED))
        rows = attempts.num_rows
        return ShardRecord(unit.name, unit.key, (FileRecord.of(root, path),), rows, rows)

    def _scores(
        self, unit: Unit, uids: list[bytes], texts: list[str | None], alts: list[str | None]
    ) -> list[tuple[float | None, float | None]]:
        """Return the scores of picture and caption, and of picture and alt text; nothing without a scorer."""
        if not self.scorer.name:
            return []
        captions = {uid: text for uid, text in zip(uids, texts, strict=True) if text}
        found: Scores = {}
        pairs = unit_pairs(self.step.root, unit, captions)
        for some in self.scorer.scored(pairs, captions, dict(zip(uids, alts, strict=True))):
            found.update(some)
        return [found.get(uid, (None, None)) for uid in uids]

    @cached_property
    def scorer(self) -> CaptionScores:
        """Return the scorer that the recipe names, where it names one."""
        return CaptionScores(self.step.recipe)

    def _counted(self, texts: Sequence[str | None], ends: Sequence[list[int] | None]) -> list[list[int] | None]:
        """Return the tokens of each text up to each sentence's end; none without a tokenizer."""
        if self.tokens is None:
            return [None] * len(texts)
        parts = [text[:end] for text, some in zip(texts, ends, strict=True) for end in some or () if text is not None]
        counts = iter(self.tokens.counts(parts))
        return [None if some is None else [next(counts) for _ in some] for some in ends]


def texts_beside(uids: pa.ChunkedArray, texts: pa.Table) -> tuple[list[str | None], list[str | None]]:
    """Return the alt text and the input's own caption of each picture, None where it has none. `texts`: uid, text,
    top_caption of its shard of pairs."""
    place = pc.index_in(uids, value_set=texts["uid"].combine_chunks())
    return texts["text"].take(place).to_pylist(), texts["top_caption"].take(place).to_pylist()


def _names(prompts: pa.ChunkedArray) -> list[str]:
    return [name for name in prompts.unique().to_pylist() if name]


def _languages(texts: Sequence[str]) -> tuple[Sequence[str | None], Sequence[float]]:
    from filters.language import detect

    codes, scores = detect(texts)
    return codes, scores.tolist()


def measured_with(recipe: Recipe) -> dict[str, WeightsFile | None]:
    """Return `tokens` and `languages`: the weights of who counts and knows them, None where they are not at hand."""
    return {name: None if isinstance(found, WeightsError) else found for name, found in _found(recipe).items()}


def _found(recipe: Recipe) -> dict[str, WeightsFile | WeightsError]:
    from filters.language import language_weights
    from tokenize_shards.text import t5_tokenizer

    looks: dict[str, Callable[[], WeightsFile]] = {
        "tokens": partial(t5_tokenizer, recipe.pretokenize.t5_weights),
        "languages": language_weights,
    }
    found: dict[str, WeightsFile | WeightsError] = {}
    for name, look in looks.items():
        try:
            found[name] = look()
        except WeightsError as error:
            found[name] = error
    return found
