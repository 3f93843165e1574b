"""Say what one code sample holds: the codes as .npy, and a JSON note of captions, crop, tokenizer and origin."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

UNKNOWN = "unknown"
"""The fingerprint of a tokenizer whose weights were not at hand when its codes were imported."""


@dataclass(frozen=True)
class Tokenizer:
    """What made the codes: architecture, sha256 of its weights, codebook size, side of the grid, and whether it is a
    stand-in."""

    name: str
    fingerprint: str
    codebook: int
    grid: int
    stand_in: bool

    def record(self) -> dict[str, str | int | bool]:
        """Return what a sample's JSON says of it; the grid stands there by itself."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "codebook": self.codebook,
            "stand_in": self.stand_in,
        }


def npy_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """Return an array as a .npy file, version 1.0, without pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def pack_numbers(features: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Return float32 features as fp16, or as bf16's upper 16 bits in uint16 (rounded to nearest even)."""
    if dtype == "fp16":
        return features.astype(np.float16)
    bits = np.ascontiguousarray(features, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def unpack_numbers(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return stored features as float32: half floats, or bfloat16's bits in uint16."""
    if numbers.dtype == np.uint16:
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32)


def captions_of(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the captions of a packed row with their sources: alt text, the input's own, then each captioner's."""
    found = [
        {"source": source, "text": row[name]}
        for source, name in (("alt", "text"), ("top_caption", "top_caption"))
        if row.get(name)
    ]
    for said in row.get("said") or ():
        made = {"model": said["model"], "prompt": said["prompt"]}
        found.append({"source": said["captioner"], "text": said["caption"], **made})
        found.append({"source": f"{said['captioner']}_short", "text": said["short_caption"], **made})
    return found


def sample_parts(row: Mapping[str, Any], tier: str, tokenizer: Tokenizer, parent: str) -> dict[str, bytes]:
    """Return the members of one sample: `codes.npy` uint16 (n_crops, n_tokens), raster order, `json`, and perhaps
    `t5.npy`.

    `row` has uid (16 bytes), url, codes (flat), n_crops, size, crops, sha256 (of the picture), text, top_caption, said;
    t5 where wanted:
    `numbers` (tokens, width), fp16 or bf16's bits in uint16, and a `note` of what made them.
    Raises ValueError when the codes are not n_crops grids or a code is outside the codebook.
    """
    codes = np.asarray(row["codes"], np.uint16).reshape(row["n_crops"], -1)
    if codes.shape[1] != tokenizer.grid**2 or codes.max(initial=0) >= tokenizer.codebook:
        got = f"{codes.shape[1]} codes up to {codes.max(initial=0)}"
        raise ValueError(
            f"codes of {row['uid'].hex()}: got {got}, wanted {tokenizer.grid**2} below {tokenizer.codebook}"
        )
    note = {
        "uid": row["uid"].hex(),
        "url": row["url"],
        "captions": captions_of(row),
        "tier": tier,
        "size": row["size"],
        "grid": tokenizer.grid,
        "crops": row["crops"],
        "image_sha256": row["sha256"].hex(),
        "tokenizer": tokenizer.record(),
        "parent_digest": parent,
    }
    parts = {"codes.npy": npy_bytes(codes)}
    if row.get("t5"):
        note["t5"], parts["t5.npy"] = row["t5"]["note"], npy_bytes(row["t5"]["numbers"])
    return {**parts, "json": json.dumps(note, ensure_ascii=False, allow_nan=False).encode()}
