"""Read the .npy files of LlamaGen's extractors: codes, labels and T5 features, or the one reason why a file cannot be
used."""

import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.guard import Guard
from tokenize_shards.samples import Tokenizer, pack_numbers, unpack_numbers

Array = npt.NDArray[Any]

MOST_BYTES = 64 << 20
"""A larger file is none of LlamaGen's: 20 crops of 4,096 codes are 655,360 bytes, 120 features of flan-t5-xl
983,040."""
MOST_TOKENS = 120
"""Captions are cut there before they are encoded (LlamaGen's language/t5.py)."""


class Fault(ValueError):
    """A line or file that cannot be used: `reason` is what it is counted under, the text says what was got and
    wanted."""

    def __init__(self, reason: str, says: str = "") -> None:
        super().__init__(says)
        self.reason = reason


def read_codes(path: Path, tokenizer: Tokenizer) -> npt.NDArray[np.uint16]:
    """Return codes (K, N) of a file (N,), (K, N) or (1, K, N), K crops. Raises Fault."""
    codes, tokens = read_array(path, "codes"), tokenizer.grid**2
    if codes.dtype.kind not in "iu":
        raise Fault("codes_dtype", f"{codes.dtype}, wanted whole numbers")
    if not codes.size or codes.ndim > 3 or codes.shape[-1:] != (tokens,):
        raise Fault("codes_shape", f"{codes.shape}, wanted (1, {tokens}) or (1, crops, {tokens})")
    if codes.min() < 0 or codes.max() >= tokenizer.codebook:
        raise Fault("codes_range", f"{codes.min()} to {codes.max()}, wanted 0 to {tokenizer.codebook - 1}")
    return codes.reshape(-1, tokens).astype(np.uint16)


def read_label(path: Path, classes: int) -> int:
    """Return the class in 0..classes - 1 of a file that holds one whole number. Raises Fault."""
    label = read_array(path, "label")
    if label.dtype.kind not in "iu":
        raise Fault("label_dtype", f"{label.dtype}, wanted whole numbers")
    if label.size != 1:
        raise Fault("label_shape", f"{label.shape}, wanted (1,)")
    if not 0 <= label.item() < classes:
        raise Fault("label_range", f"{label.item()}, wanted 0 to {classes - 1}")
    return int(label.item())


def read_features(path: Path, width: int) -> tuple[Array, str]:
    """Return the features (n, width) of a file (1, n, width) or (n, width), n from 1 to 120, as stored in a shard, and
    their dtype.

    "fp16", or "bf16" where that alone holds them exactly (LlamaGen computes in bfloat16 and saves float32) or fp16
    overflows. Raises Fault.
    """
    features = read_array(path, "t5")
    if features.dtype.kind != "f":
        raise Fault("t5_dtype", f"{features.dtype}, wanted float32 or float16")
    if (
        features.ndim not in (2, 3)
        or (features.ndim == 3 and len(features) != 1)
        or not 1 <= features.shape[-2] <= MOST_TOKENS
    ):
        raise Fault("t5_shape", f"{features.shape}, wanted (1, 1 to {MOST_TOKENS} tokens, {width})")
    if features.shape[-1] != width:
        raise Fault("t5_width", f"{features.shape[-1]}, wanted {width}")
    if not np.isfinite(features).all():
        raise Fault("t5_not_finite", "NaN or infinite")
    return _packed(features.reshape(-1, width))


def _packed(features: Array) -> tuple[Array, str]:
    with np.errstate(over="ignore"):
        half, brain = (pack_numbers(features.astype(np.float32), dtype) for dtype in ("fp16", "bf16"))
    for numbers, dtype in ((half, "fp16"), (brain, "bf16")):
        if np.array_equal(unpack_numbers(numbers), features):
            return numbers, dtype
    if np.isfinite(half).all():
        return half, "fp16"
    if not np.isfinite(unpack_numbers(brain)).all():
        raise Fault("t5_not_finite", "too large for 16 bits")
    return brain, "bf16"


def features_width(path: Path) -> int | None:
    """Return the width of a file's features, None where it cannot be read."""
    try:
        shape = read_array(path, "t5").shape
    except Fault:
        return None
    return shape[-1] if shape else None


def read_array(path: Path, kind: str) -> Array:
    """Return the array of a .npy file, never unpickled. Raises Fault: missing_KIND or unreadable_KIND."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Fault(f"missing_{kind}") from error
    except OSError as error:
        raise Fault(f"unreadable_{kind}", error.strerror or "") from error
    with Guard() as guard:  # numpy raises many kinds for a header that is none
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
            raise ValueError(f"no file, or one of more than {MOST_BYTES:,} bytes")
        return _decode(path)
    words = str(guard.error).splitlines() or [type(guard.error).__name__]
    raise Fault(f"unreadable_{kind}", words[0][:100]) from guard.error


def _decode(path: Path) -> Array:
    """Read header and numbers; the header's claim is held against the file's length before anything is allocated."""
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
            version
        )
        if read_header is None:
            raise ValueError(f".npy version {version}, wanted 1.0 or 2.0")
        shape, fortran, dtype = read_header(file)
        if dtype.hasobject:
            raise ValueError("pickled objects, which are not opened")
        data = file.read()
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(data)} bytes of numbers, its header says {math.prod(shape)} of {dtype}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
