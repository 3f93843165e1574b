"""Say what one code sample holds: the codes as .npy, and a JSON note of captions, crop, tokenizer and origin."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Tokenizer:
    """What made the codes: architecture, sha256 of its weights, codebook size, side of the grid, and whether it is a stand-in."""

    name: str
    fingerprint: str
    codebook: int
    grid: int
    stand_in: bool


def npy_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """Return an array as a .npy file, version 1.0, without pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def captions_of(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the captions of a packed row with their sources: alt text, the input's own, then each captioner's."""
    found = [{"source": source, "text": row[name]} for source, name in (("alt", "text"), ("top_caption", "top_caption")) if row.get(name)]
    for said in row.get("said") or ():
        made = {"model": said["model"], "prompt": said["prompt"]}
        found.append({"source": said["captioner"], "text": said["caption"], **made})
        found.append({"source": f"{said['captioner']}_short", "text": said["short_caption"], **made})
    return found


def sample_parts(row: Mapping[str, Any], tier: str, tokenizer: Tokenizer, parent: str) -> dict[str, bytes]:
    """Return the members of one sample: `codes.npy` uint16 (n_crops, n_tokens), raster order, and `json`.

    `row` has uid (16 bytes), url, codes (flat), n_crops, size, crop, flip, sha256 (of the picture), text, top_caption, said.
    Raises ValueError when the codes are not n_crops grids or a code is outside the codebook.
    """
    codes = np.asarray(row["codes"], np.uint16).reshape(row["n_crops"], -1)
    if codes.shape[1] != tokenizer.grid**2 or codes.max(initial=0) >= tokenizer.codebook:
        got = f"{codes.shape[1]} codes up to {codes.max(initial=0)}"
        raise ValueError(f"codes of {row['uid'].hex()}: got {got}, wanted {tokenizer.grid**2} below {tokenizer.codebook}")
    note = {
        "uid": row["uid"].hex(),
        "url": row["url"],
        "captions": captions_of(row),
        "tier": tier,
        "size": row["size"],
        "grid": tokenizer.grid,
        "crops": [{"crop": row["crop"], "flip": row["flip"]}],
        "image_sha256": row["sha256"].hex(),
        "tokenizer": {
            "name": tokenizer.name,
            "fingerprint": tokenizer.fingerprint,
            "codebook": tokenizer.codebook,
            "stand_in": tokenizer.stand_in,
        },
        "parent_digest": parent,
    }
    return {"codes.npy": npy_bytes(codes), "json": json.dumps(note, ensure_ascii=False, allow_nan=False).encode()}
