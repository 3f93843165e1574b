"""Name the data sets that can be read: what their files are, which of their columns mean what ours do, where pictures
come from."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["parquet", "jsonl", "tar"]
SAYS: dict[str, str] = {
    "parquet": "a Parquet table",
    "jsonl": "lines of JSON",
    "tar": "a tar of pictures",
    "gzip": "a gzip archive",
    "zip": "a zip archive",
    "array": "one JSON array",
    "text": "text",
    "empty": "an empty file",
    "?": "something else",
}


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


def kind_of(head: bytes) -> str:
    """Return what a file is, from its first 512 bytes: a key of SAYS."""
    if not head:
        return "empty"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head[257:262] == b"ustar" or _old_tar(head):
        return "tar"
    for mark, kind in ((b"\x1f\x8b", "gzip"), (b"PK\x03\x04", "zip")):
        if head.startswith(mark):
            return kind
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return "jsonl"
    if head.lstrip().startswith(b"[") and _is_text(head):
        return "array"
    return "text" if _is_text(head) else "?"


def _old_tar(head: bytes) -> bool:
    """Tell a tar header without a mark by its checksum."""
    if len(head) < 512:
        return False
    try:
        wanted = int(head[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return sum(head[:148]) + sum(head[156:512]) + 8 * 32 == wanted


def _is_text(head: bytes) -> bool:
    try:
        return head[:-3].decode().isprintable() or (b"\n" in head and b"\0" not in head)
    except UnicodeDecodeError:
        return False


def readers_of(kind: str) -> str:
    """Return the data sets that read files of this kind, for errors."""
    return ", ".join(name for name, dataset in DATASETS.items() if dataset.kind == kind and not name.startswith("demo"))
