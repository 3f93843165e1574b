"""Turn captions into flan-T5 features as LlamaGen does, without its padding to 120 tokens."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from manifests.model_folder import files_fingerprint, missing_files, model_files
from manifests.weights import WeightsError, WeightsFile
from tokenize_shards.captions import clean_caption

__all__ = ["MAX_TOKENS", "T5Features", "T5Tokens", "check_t5", "clean_caption", "t5_tokenizer", "t5_weights"]

MAX_TOKENS = 120
"""LlamaGen's limit, the closing `</s>` included."""
MAX_CHARACTERS = 4000
"""Longer captions are cut before they are cleaned, whose time grows with the square of a hostile text's length (0.4 s
here)."""
BUCKET_TOKENS = 8
"""Captions are padded to the next multiple: 9 words take 16 positions, not 120."""
LOCAL: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
LOADED = (".json", ".safetensors", ".model")
TOKENIZER = (".json", ".model")
NEEDED = (("tokenizer.json", "spiece.model"),)
"""Beside config and weights: either."""
GET = (
    "Get it on a machine with internet: `hf download google/flan-t5-xl` fills the local cache (11 GB),"
    " or put config.json, the .safetensors files and the tokenizer into any folder and name that folder."
)


def t5_weights(model: str) -> WeightsFile:
    """Return the identity of a T5 in a local folder, or of a hub name in the local cache. Raises WeightsError where
    there is none."""
    folder = _folder(model)
    name = "T5" if Path(model).expanduser().is_dir() else model
    return WeightsFile(name, files_fingerprint(model_files(folder, LOADED)), path=str(folder))


def t5_tokenizer(model: str) -> WeightsFile:
    """Return the identity of a T5's tokenizer alone. Raises WeightsError as `t5_weights` does."""
    folder = _folder(model)
    return WeightsFile("T5 tokenizer", files_fingerprint(model_files(folder, TOKENIZER)), path=str(folder))


def _folder(model: str) -> Path:
    folder = Path(model).expanduser()
    if not folder.is_dir():
        folder = _cached(model)
    missing = missing_files(folder, NEEDED)
    if missing:
        raise WeightsError(f"weights of T5: {folder} lacks {', '.join(missing)}. {GET}")
    return folder


def _cached(model: str) -> Path:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        found = None
    if not isinstance(found, str):
        raise WeightsError(
            f"weights of T5: {model!r} is neither a folder nor a model in the local cache, and nothing is downloaded by"
            f" itself. {GET}"
        )
    return Path(found).parent


def check_t5(model: str) -> None:
    """Read every parameter of a T5, one tensor in memory at a time. Raises WeightsError for one that is NaN or
    infinite: every feature would be."""
    folder = _folder(model)
    for path in model_files(folder, (".safetensors",)):
        _need_finite(folder, _tensors(path))


def _tensors(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (name, tensor) of a safetensors file, one in memory at a time. Raises WeightsError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 -- no mapping
                yield name, file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"weights of T5: {path} cannot be loaded ({error}). {GET}") from error


def _need_finite(folder: object, tensors: Iterable[tuple[str, Any]]) -> None:
    import torch

    for name, tensor in tensors:
        if bad := int((~torch.isfinite(tensor)).sum()):
            raise WeightsError(
                f"weights of T5: {bad:,} of {tensor.numel():,} numbers of {name} in {folder} are NaN or infinite, and"
                f" so would be the features. {GET}"
            )


class T5Tokens:
    """A T5's tokenizer alone: what says how many feature vectors a caption will have."""

    def __init__(self, model: str) -> None:
        """Load from a local folder or the local cache. Raises WeightsError."""
        from transformers import AutoTokenizer

        self.weights = t5_weights(model)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(self.weights.path, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise _unloaded(self.weights, error) from error

    @property
    def padding(self) -> int:
        """Return the id that fills a batch up."""
        return int(self._tokenizer.pad_token_id)

    def ids(self, captions: Sequence[str]) -> list[list[int]]:
        """Return each caption's tokens, 1 to 120 with `</s>`. Captions are cleaned here."""
        texts = [clean_caption(caption[:MAX_CHARACTERS]) for caption in captions]
        if not texts:
            return []
        found = self._tokenizer(texts, max_length=MAX_TOKENS, truncation=True, add_special_tokens=True)["input_ids"]
        return list(found)

    def counts(self, captions: Sequence[str]) -> list[int]:
        """Return how many tokens each caption has before it is cut to 120, `</s>` among them; of one above 4,000
        characters those of its beginning."""
        texts = [clean_caption(caption[:MAX_CHARACTERS]) for caption in captions]
        if not texts:
            return []
        return [len(ids) for ids in self._tokenizer(texts, add_special_tokens=True, verbose=False)["input_ids"]]


def _unloaded(weights: WeightsFile, error: Exception) -> WeightsError:
    said = (str(error).splitlines() or ["?"])[0]
    return WeightsError(f"weights of T5: {weights.path} cannot be loaded ({said}). {GET}")


class T5Features:
    """A T5 encoder that gives each caption its own number of feature vectors."""

    def __init__(
        self, model: str, precision: Literal["fp32", "bf16"] = "fp32", *, batch_size: int = 16, device: str = "cpu"
    ) -> None:
        """Load from a local folder or the local cache; LlamaGen's features were made in bf16. Raises WeightsError."""
        import torch
        from safetensors import SafetensorError
        from transformers import T5EncoderModel

        self._tokens = T5Tokens(model)
        self.weights = self._tokens.weights
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        try:
            loaded, report = T5EncoderModel.from_pretrained(self.weights.path, dtype=dtype, **LOCAL)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise _unloaded(self.weights, error) from error
        if report["missing_keys"]:
            raise WeightsError(
                f"weights of T5: {self.weights.path} lacks parameters ({', '.join(sorted(report['missing_keys'])[:3])}"
                f" …). {GET}"
            )
        _need_finite(self.weights.path, loaded.named_parameters())
        self._model: Any = loaded.to(device).eval()
        self._batch_size = batch_size
        self._device = device

    @property
    def dim(self) -> int:
        """Return the width of a feature vector: 2,048 for flan-t5-xl."""
        return int(self._model.config.d_model)

    def features(self, captions: Sequence[str]) -> list[np.ndarray]:
        """Return float32 (n, dim) per caption, n <= 120 tokens with `</s>`, in the captions' order. Captions are
        cleaned here.

        Batches hold captions of one padded length and are filled up to `batch_size`, so that a caption's features
        on a CPU do not depend on its neighbours; attention is masked, so they equal those padded to 120.
        """
        found: dict[int, np.ndarray] = {}
        for rows, lengths, out_BTC in self._encoded(captions):
            for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
                found[row] = out_BTC[place, :length].float().cpu().numpy()
        return [found[row] for row in range(len(captions))]

    def on_device(self, captions: Sequence[str]) -> tuple[Any, list[int]]:
        """Return the feature vectors of all captions one behind the other, (tokens of all, dim), on the encoder's
        device and in its precision, and how many each caption has. Nothing waits for the device."""
        import torch

        parts, order, lengths_of = [], list[int](), [0] * len(captions)
        for rows, lengths, out_BTC in self._encoded(captions):
            width = out_BTC.shape[1]
            picked = [place * width + token for place, length in enumerate(lengths) for token in range(length)]
            parts.append(out_BTC.flatten(0, 1)[torch.tensor(picked).to(out_BTC.device, non_blocking=True)])
            order += rows
            for row, length in zip(rows, lengths, strict=True):
                lengths_of[row] = length
        starts = dict(zip(order, np.cumsum([0, *(lengths_of[row] for row in order)])[:-1].tolist(), strict=True))
        places = [starts[row] + token for row, length in enumerate(lengths_of) for token in range(length)]
        flat_XC = torch.cat(parts) if parts else torch.zeros(0, self.dim, device=self._device)
        return flat_XC[torch.tensor(places, dtype=torch.int64).to(flat_XC.device, non_blocking=True)], lengths_of

    def _encoded(self, captions: Sequence[str]) -> Iterator[tuple[list[int], list[int], Any]]:
        """Yield (rows, their numbers of tokens, vectors (B, T, dim)) of captions of one padded length at a time."""
        ids = self._tokens.ids(captions)
        buckets: dict[int, list[int]] = {}
        for row, tokens in enumerate(ids):
            buckets.setdefault(-(-len(tokens) // BUCKET_TOKENS) * BUCKET_TOKENS, []).append(row)
        for length, rows in sorted(buckets.items()):
            for start in range(0, len(rows), self._batch_size):
                chunk = rows[start : start + self._batch_size]
                yield chunk, [len(ids[row]) for row in chunk], self._encode([ids[row] for row in chunk], length)

    def _encode(self, ids: list[list[int]], length: int) -> Any:
        import torch

        ids_BT = torch.full((self._batch_size, length), self._tokens.padding)
        mask_BT = torch.zeros((self._batch_size, length), dtype=torch.long)
        mask_BT[:, 0] = 1  # rows that only fill the batch still need a position to look at
        for row, tokens in enumerate(ids):
            ids_BT[row, : len(tokens)] = torch.tensor(tokens)
            mask_BT[row, : len(tokens)] = 1
        with torch.inference_mode():
            return self._model(
                input_ids=ids_BT.to(self._device, non_blocking=True),
                attention_mask=mask_BT.to(self._device, non_blocking=True),
            ).last_hidden_state
