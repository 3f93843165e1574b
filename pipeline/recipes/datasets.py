"""Name the data sets that can be read: what their files are, which of their columns mean what ours do, where pictures
come from."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["parquet", "jsonl", "tar"]


PACKED = (".gz", ".bz2", ".zst", ".xz")
"""Endings of packed text."""
LINES = tuple(f".jsonl{packed}" for packed in PACKED)
TEXTS = tuple(
    f"{ending}{packed}"
    for packed in ("", *PACKED)
    for ending in (".csv", ".tsv", ".tab", ".txt", ".json", ".jsonl", ".ndjson")
)


@dataclass(frozen=True)
class Dataset:
    """A data set: the kind of its files, our column -> its column (same meaning, same scale), whether its pictures lie
    beside it."""

    kind: Kind
    columns: dict[str, str]
    local: bool = False

    @property
    def endings(self) -> tuple[str, ...]:
        """Return the endings of the files that a folder of it is read for."""
        return {"parquet": (".parquet",), "jsonl": (".jsonl",), "tar": (".parquet", ".tar")}[self.kind]

    @property
    def text_endings(self) -> tuple[str, ...]:
        """Return the endings of the text, and of Parquet tables by other names, that a folder of it is read for where
        it has no file of `endings`."""
        return {"parquet": (*TEXTS, ".parq", ".pq"), "jsonl": LINES, "tar": ()}[self.kind]


SCORED = {"similarity": "similarity", "pwatermark": "pwatermark", "punsafe": "punsafe"}
LAION_COCO = Dataset(
    "parquet",
    {"url": "URL", "text": "TEXT", "top_caption": "top_caption", "width": "WIDTH", "height": "HEIGHT", **SCORED},
)
DATASETS: dict[str, Dataset] = {
    "laion-coco": LAION_COCO,
    "img2dataset": Dataset(
        "tar",
        {
            **{"url": "url", "text": "caption", "top_caption": "top_caption", "width": "width", "height": "height"},
            **{**SCORED, "aesthetic_v1": "aesthetic_v1", "aesthetic_v2": "aesthetic_v2"},
        },
        local=True,
    ),
    "jsonl": Dataset("jsonl", {"url": "image_path", "text": "text", "top_caption": "top_caption"}, local=True),
    "coyo": Dataset(
        "parquet",
        {
            **{"url": "url", "text": "text", "width": "width", "height": "height"},
            **{"similarity": "clip_similarity_vitb32", "aesthetic_v2": "aesthetic_score_laion_v2"},
        },
    ),
    "datacomp": Dataset(
        "parquet",
        {
            **{"url": "url", "text": "text", "width": "original_width", "height": "original_height"},
            "similarity": "clip_b32_similarity_score",
        },
    ),
    "columns": Dataset("parquet", {}),
    "demo": LAION_COCO,
    "demo-artworks": LAION_COCO,
}
"""COYO's `watermark_score` and `nsfw_score_*` and both sets' ViT-L/14 similarities are on scales of their own, so
nothing takes them for LAION's. In the img2dataset layout `width` is the stored picture's, which is the one there is."""
