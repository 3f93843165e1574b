"""Read the recipe: one strict TOML file for all stages and the trainer, with `--set KEY=VALUE` on top."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from captioning.corpus.config import AuditConfig
from captioning.gate.config import GateConfig
from filters.fetch.config import FetchConfig
from manifests.roots import root_of
from manifests.store import path_of
from pipeline.recipes.runner import RunnerConfig
from pipeline.recipes.train import TrainConfig, check_weights

Rule = dict[str, Any]
BESIDE_TIERS = ("encoded", "t5")
"""Folders of codes/ that hold what tiers are packed from: no tier may be called so."""


class RecipeError(ValueError):
    """The recipe or the command asks for something that cannot be; raised before any work."""


class Section(BaseModel):
    """A table of the recipe: unknown keys raise, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OpenSection(BaseModel):
    """A table of the recipe with one sub-table per model, such as [score.clip] or [caption.llava]."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="after")
    def _extras_are_tables(self) -> "OpenSection":
        for name, value in (self.model_extra or {}).items():
            if not isinstance(value, dict):
                raise ValueError(
                    f"unknown key {name!r}; known: {', '.join(type(self).model_fields)}, or a table for each model"
                )
        return self

    def options(self, name: str) -> dict[str, Any]:
        """Return the options of one model: its sub-table, or nothing."""
        return dict((self.model_extra or {}).get(name, {}))


class InputSection(Section):
    """[input]: which rows."""

    dataset: Literal["laion-coco", "img2dataset", "jsonl", "coyo", "datacomp", "columns", "demo", "demo-artworks"] = (
        Field("laion-coco", description="what the input is; the demo's make their own pictures and table")
    )
    files: str | list[str] = Field(
        "data/*.parquet", description="its files, folders, to any depth, or globs, local or any fsspec URL"
    )
    images: str | None = Field(
        None, description="jsonl: the folder that pictures must lie in; none: the part of `files` before any wildcard"
    )
    columns: dict[str, str] = Field({}, description="our column = the input's column, on top of the data set's mapping")
    unit_rows: int = Field(100_000, ge=1, description="row groups are joined into units of about this many rows")
    sample: float | None = Field(
        None, gt=0, le=1, description="share of rows kept by hash(uid, seed); a smaller sample is part of a larger one"
    )
    limit: int | None = Field(None, ge=1, description="about this many rows, chosen like `sample`")
    seed: int = Field(0, description="seed of `sample` and `limit`")
    max_loss: float = Field(
        0.5, ge=0, le=1, description="the run ends with exit code 3 above this share of unreadable files or rows"
    )


class OutputSection(Section):
    """[output]: where the run folder is, and what a query over its tables may take."""

    root: str = Field("runs/laion-coco", description="run folder: a local one, or a URL such as s3://BUCKET/FOLDER")
    memory_limit: str = Field(
        "2GB",
        pattern=r"^[1-9][0-9]*(MB|GB|TB|MiB|GiB|TiB)$",
        description="what a query of DuckDB may hold in memory; the rest lies in the run folder meanwhile",
    )
    threads: int = Field(0, ge=0, le=1024, description="threads of a query of DuckDB; 0: one for each core")

    @field_validator("root")
    @classmethod
    def _is_a_place(cls, root: str) -> str:
        root_of(root)
        return root


class ExcludeFile(Section):
    """One list of [filter] exclude whose kind is said."""

    file: str = Field(description="the list")
    kind: Literal["uid", "url", "host", "hash", "phash", "md5", "sha1", "source_sha256", "pdq"] | None = Field(
        None, description="what its values are"
    )
    radius: int = Field(
        0,
        ge=0,
        le=63,
        description=(
            "for pHashes (16 at most) and PDQ: the Hamming distance up to which a picture is one of them, in bits"
        ),
    )


class FilterSection(Section):
    """[filter]: rules that every pair must pass, in order; the first that fails is the row's reason."""

    rules: list[Rule] = Field(
        [], description="{use = NAME, threshold = value, …}; a rule's name is its `use` unless `name` is given"
    )
    exclude: str | ExcludeFile | list[str | ExcludeFile] = Field(
        [],
        description=(
            "files of uids, URLs, hosts, LAION hashes, pHashes, or digests of pictures (md5, sha1, source_sha256, pdq)"
            " whose rows are `removed`; {file, kind, radius} where needed"
        ),
    )
    python: str | list[str] = Field(
        [], description="Python files with filters of your own, beside the recipe or in the current folder"
    )


class ScoreSection(OpenSection):
    """[score]: which heads compute columns that the input lacks; [score.NAME] holds a head's or encoder's options."""

    use: list[str] = Field([], description="heads to run")
    batch_size: int = Field(
        32, ge=1, le=65_536, description="pictures per model batch; batches are padded to it; 256 or more on a GPU"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="arithmetic of CLIP and LAION's watermark detector; bf16 for a GPU"
    )
    embeddings: bool = Field(
        False, description="keep CLIP's picture embeddings in scores/ as float16, for semantic duplicates"
    )
    decoders: int = Field(
        0, ge=0, le=1024, description="processes that decode pictures beside each worker; 0: the worker itself"
    )


class DedupSection(Section):
    """[dedup]: near duplicates by perceptual hash."""

    radius: int = Field(
        6, ge=0, le=16, description="pictures within this Hamming distance of 64-bit pHashes are one cluster, in bits"
    )
    placeholders: str | list[str] = Field(
        [], description="stand-in pictures: picture files, lists of pHashes, or pHashes of 16 hex digits"
    )
    placeholder_min: int = Field(
        100,
        ge=0,
        description=(
            "a pHash under this many different URLs and as many different texts is a placeholder; 0: only listed ones"
        ),
    )


class DecontaminateSection(Section):
    """[decontaminate]: what evaluation sets hold must not be trained on."""

    images: str | list[str] = Field(
        [], description="pictures of evaluation sets: folders of any depth, tars, single files"
    )
    radius: int = Field(
        4,
        ge=0,
        le=16,
        description="pictures within this Hamming distance of an evaluation picture's pHash match, in bits",
    )
    cosine: float = Field(
        0.95, ge=0, le=1, description="where scores/ holds embeddings: this cosine to an evaluation picture matches too"
    )
    prompts: str | list[str] = Field([], description="prompts of evaluation sets: CSV, TSV, JSON lines or plain lines")
    ngram: int = Field(
        8, ge=2, description="words in a row that a text shares with a prompt; whole prompts where they are shorter"
    )
    whole: int = Field(
        4, ge=1, description="words from which on a shorter prompt may stand within a text; below, it must be all of it"
    )
    action: Literal["drop", "report"] = Field(
        "drop", description="'report': matches are only listed in ledger/eval_matches.parquet"
    )


class TierSection(Section):
    """[tier.NAME]: a size and a list of thresholds; a pair may be in several tiers."""

    size: int = Field(ge=8, description="side of the square crop, in pixels")
    rules: list[Rule] = Field([], description="rules on top of [filter]")
    caption: str | list[str] | None = Field(
        None, description="captioners of this tier's pictures, in order of preference; none: the alt text"
    )
    captions: dict[str, float] | None = Field(
        None,
        min_length=1,
        description="caption source = weight where this tier is trained on and train.captions is none",
    )
    vq: str | None = Field(None, description="tokenizer; none: [pretokenize] vq")
    weights: str | None = Field(None, description="tokenizer weights; none: [pretokenize] weights")
    max_pairs: int | None = Field(None, ge=1, description="encode only this many pairs, chosen by hash(uid, seed)")

    @field_validator("captions")
    @classmethod
    def _can_be_drawn(cls, weights: dict[str, float] | None) -> dict[str, float] | None:
        if weights is not None:
            check_weights(weights)
        return weights


class PromptSection(Section):
    """[caption.prompts.NAME]: a prompt of one's own."""

    text: str = Field(description="what is asked beside a picture; may hold {alt} and {top_caption}")
    without: str = Field("", description="what is asked of a picture that lacks a field of the text")


class CaptionSection(OpenSection):
    """[caption]: [caption.NAME] holds a captioner's options."""

    batch_size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="pictures that are described together; none: 8, on a GPU as many as its memory holds, found once",
    )
    decoders: int = Field(
        0, ge=0, le=1024, description="processes that decode pictures beside each worker; 0: the worker itself"
    )
    python: str | list[str] = Field(
        [], description="Python files with captioners of your own, beside the recipe or in the current folder"
    )
    prompts: dict[str, PromptSection] = Field({}, description="prompts of your own by name: [caption.prompts.NAME]")
    gate: GateConfig = Field(GateConfig(), description="what follows from what is said: [caption.gate]")
    audit: AuditConfig = Field(AuditConfig(), description="bounds over all captions of a run: [caption.audit]")


class PretokenizeSection(Section):
    """[pretokenize]: pictures to VQ codes in shards."""

    vq: str = Field("VQ-16", description="tokenizer architecture")
    weights: str = Field(
        "vq_ds16_t2i.pt", description="weights file; 'stand-in' for seeded random ones; 'demo' for the packaged VQ-demo"
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field("fp32", description="arithmetic of the encoder")
    min_agreement: float = Field(
        0.99,
        ge=0,
        le=1,
        description="share of codes that must be float32's; below it the run refuses (stand-ins are only reported)",
    )
    fused: bool = Field(False, description="compile the encoder on a GPU")
    batch_size: int = Field(
        8,
        ge=0,
        le=65_536,
        description="crops per batch; batches are padded to it; 0: what the GPU's memory holds, found once",
    )
    decoders: int = Field(
        0, ge=0, le=1024, description="processes that decode and crop pictures beside each worker; 0: the worker itself"
    )
    crop: Literal["center", "ten"] = Field(
        "center", description="ADM centre crop, or ten-crop: corners, centre, and all mirrored"
    )
    scales: list[Annotated[float, Field(ge=1, le=2)]] = Field(
        [1.1], min_length=1, description="short side of the square that ten-crops are cut from, in sides of a crop"
    )
    flip: bool = Field(False, description="store the centre crop's mirror image too; ten-crops hold theirs already")
    shard_rows: int = Field(10_000, ge=1, le=1_000_000_000, description="samples in a code shard at most")
    shard_bytes: int = Field(1_000_000_000, ge=10_000, description="size of a code shard at most, in bytes")
    seed: int = Field(0, description="seed of the packed order and of max_pairs")
    t5: Literal["online", "precomputed"] = Field(
        "online",
        description="precomputed: flan-T5 features stand in the shards; online: the trainer makes them",
    )
    t5_weights: str = Field("google/flan-t5-xl", description="T5 in a local folder or the local cache")
    t5_caption: str = Field(
        "alt",
        description="which caption is encoded: alt, top_caption, recaption, recaption_short, a captioner's name, or"
        " that with _short or _fit",
    )
    t5_dtype: Literal["fp16", "bf16"] = Field(
        "fp16", description="stored numbers: half floats, or bfloat16's bits as uint16"
    )
    t5_batch_size: int = Field(
        32, ge=1, le=65_536, description="captions per T5 batch, all padded to one length; batches are filled up to it"
    )


class Recipe(Section):
    """The whole recipe. Precedence: defaults here < file < --set."""

    input: InputSection = InputSection()
    output: OutputSection = OutputSection()
    fetch: FetchConfig = FetchConfig()
    filter: FilterSection = FilterSection()
    score: ScoreSection = ScoreSection()
    dedup: DedupSection = DedupSection()
    decontaminate: DecontaminateSection = DecontaminateSection()
    tier: dict[str, TierSection] = Field(min_length=1)
    caption: CaptionSection = CaptionSection()
    pretokenize: PretokenizeSection = PretokenizeSection()
    train: TrainConfig = TrainConfig()
    runner: RunnerConfig = RunnerConfig()

    @property
    def root(self) -> Path:
        """Return the run folder."""
        return path_of(self.output.root)

    @property
    def store_side(self) -> int:
        """Return the short side of stored pictures in pixels: `fetch.store_side`, else 1.1 x the largest tier (ten-crop
        needs it)."""
        return self.fetch.store_side or -(-11 * max(tier.size for tier in self.tier.values()) // 10)

    def tokenizer(self, tier: str) -> tuple[str, str]:
        """Return (architecture, weights) of a tier's tokenizer."""
        return self.tier[tier].vq or self.pretokenize.vq, self.tier[tier].weights or self.pretokenize.weights

    def plain(self) -> dict[str, Any]:
        """Return the resolved recipe as plain values without nulls, ready for TOML or JSON.

        [runner] is left out: it says where this invocation works, and a run folder is the same wherever it was made.
        """
        values: dict[str, Any] = _without_nulls(self.model_dump(mode="json", exclude={"runner"}))
        return values


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
