"""Look for a stock agency's mark with PP-OCRv4, as ONNX inside the package rapidocr-onnxruntime."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.scorers.base import Array, Encoded, Texts
from filters.scorers.stock_words import is_stock_mark
from filters.weights import packaged
from manifests.extras import need
from manifests.weights import WeightsFile

if TYPE_CHECKING:
    from PIL.Image import Image

FINDER, READER = "ch_PP-OCRv4_det_infer.onnx", "ch_PP-OCRv4_rec_infer.onnx"
SHA256 = {
    FINDER: "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
    READER: "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
}
ONE_THREAD = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
FINDER_SETTINGS = {"limit_side_len": 32, "limit_type": "min", "mean": [0.5] * 3, "std": [0.5] * 3}
"""Pictures come at their final size, so the finder must not enlarge them."""
READER_SETTINGS = {"rec_batch_num": 1, "rec_img_shape": [3, 48, 192]}
"""One box at a time, so that reading can stop at the first mark."""
MOST_READ = 6
"""Boxes read in a picture, the largest first: tiled marks repeat, so the seventh says nothing new."""
LEAST_HEIGHT = 8.0
"""Pixels; letters lower than this are not read."""
TEXT_SCALE = 0.49
"""Keeps ordinary text, however much, below 0.5."""


def weights() -> tuple[WeightsFile, ...]:
    """Return the identities of both models. Raises WeightsError where their package is missing or altered."""
    return tuple(
        packaged(f"stock_mark ({file})", "rapidocr_onnxruntime", f"models/{file}", digest)
        for file, digest in SHA256.items()
    )


@dataclass
class StockMark:
    """The encoder `stock_mark`: picture by picture. `side` is the long side in pixels at which text is looked for."""

    name = "stock_mark"

    side: int

    @property
    def preprocessing(self) -> str:
        """What becomes of a picture before the model sees it."""
        return f"long side {self.side} px bilinear, BGR"

    def __post_init__(self) -> None:
        import cv2

        TextDetector = need("rapidocr_onnxruntime.ch_ppocr_det", "score").TextDetector
        TextRecognizer = need("rapidocr_onnxruntime.ch_ppocr_rec", "score").TextRecognizer

        cv2.setNumThreads(1)
        finder, reader = weights()
        self.find: Any = TextDetector({"model_path": finder.path, **ONE_THREAD, **FINDER_SETTINGS})
        self.read: Any = TextRecognizer({"model_path": reader.path, **ONE_THREAD, **READER_SETTINGS})

    def encode(self, images: "Sequence[Image]", texts: Texts) -> Encoded:
        """Return `stock_mark`: (N,) float32, 1 for a stock agency's word, else 0.49 x the share of the picture that is
        text."""
        return {"stock_mark": np.array([self.evaluate(image) for image in images], np.float32)}

    def evaluate(self, image: "Image") -> float:
        """Find the texts of one RGB picture and read the largest until one is a mark."""
        bgr = resized(image, self.side)
        found = self.find(bgr)[0]
        boxes = [] if found is None else [np.asarray(box, np.float32) for box in found]
        boxes.sort(key=lambda box: -_area(box))  # a stable sort: equal areas stay in the finder's order
        readable = [box for box in boxes if min(_sides(box)) >= LEAST_HEIGHT]
        if any(is_stock_mark(str(self.read([straightened(bgr, box)])[0][0][0])) for box in readable[:MOST_READ]):
            return 1.0
        share = sum(map(_area, boxes)) / (bgr.shape[0] * bgr.shape[1])
        return float(TEXT_SCALE * min(share, 1.0))


def resized(image: "Image", side: int) -> Array:
    """Return the picture with a long side of `side` pixels, (H, W, 3) uint8 BGR. Small ones are enlarged: more marks
    are found."""
    from PIL import Image

    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return np.ascontiguousarray(np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))[:, :, ::-1])


def straightened(bgr: Array, box: Array) -> Array:
    """Return the part of the picture inside a box of four corners (clockwise from top left), turned upright."""
    import cv2

    width, height = (max(1, int(length)) for length in _sides(box))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    turn = cv2.getPerspectiveTransform(box, target)
    cut: Array = cv2.warpPerspective(bgr, turn, (width, height), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_CUBIC)
    return np.rot90(cut) if height >= 1.5 * width else cut  # text that runs upwards


def _sides(box: Array) -> tuple[float, float]:
    """Return (width, height) of a box of four corners, the longer of each two opposite sides."""
    edges = np.linalg.norm(box - np.roll(box, -1, axis=0), axis=1)
    return float(max(edges[0], edges[2])), float(max(edges[1], edges[3]))


def _area(box: Array) -> float:
    """Return the area of a box of four corners in square pixels (shoelace formula)."""
    x, y = box.astype(np.float64).T
    return float(abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2)
