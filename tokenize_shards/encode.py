"""Encode pictures into VQ codes so that a picture's codes never depend on its neighbours."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from tokenize_shards.catalog import VQSpec
from tokenize_shards.crops import CropPlan, crops_of
from tokenize_shards.vq import LoadedVQ

if TYPE_CHECKING:
    from torch import Tensor

Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
"""fp32 is exact; tf32 is what LlamaGen's extraction uses and differs on CUDA alone; bf16 is autocast in the encoder."""
CENTER = CropPlan()
SMALLEST_BATCH, LARGEST_TRIED = 8, 1024
GREY = 128  # what fills up a GPU's last batch


class Encoder:
    """A loaded tokenizer, ready to encode; on a GPU where torch sees one, unless `device` says otherwise."""

    def __init__(
        self, loaded: LoadedVQ, precision: Precision = "fp32", device: str = "auto", *, fused: bool = False
    ) -> None:
        """Move the tokenizer to its device; `fused` compiles the encoder there, a CPU aside. Raises ValueError for an
        unknown precision."""
        import torch

        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r} is not known; the choices are: {', '.join(PRECISIONS)}")
        self.precision: Precision = precision
        self.weights, self.fingerprint = loaded.weights, loaded.fingerprint
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self._vq = loaded.vq.to(self.device).eval()
        self.fused = fused and self.device.type == "cuda"
        if self.device.type == "cuda":
            self._vq = self._vq.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._latents: Callable[[Tensor], Tensor] = (
            torch.compile(self._vq.latents, dynamic=False) if self.fused else self._vq.latents
        )

    @property
    def spec(self) -> VQSpec:
        """Return the tokenizer's layout."""
        return self._vq.spec

    @property
    def exact(self) -> bool:
        """Tell whether this is plain float32, which others are compared with: a CPU has no TF32, and compiled code
        rounds otherwise."""
        return not self.fused and (self.precision == "fp32" or (self.precision == "tf32" and self.device.type == "cpu"))

    def largest_batch(self, size: int) -> int:
        """Return the batch to encode squares of `size` pixels in: 8 on a CPU, which takes them one by one; on a GPU
        half of the largest power of two up to 1,024 that its memory holds, so that it does not depend on the moment."""
        import torch

        if self.device.type != "cuda":
            return SMALLEST_BATCH
        # Not compiled: each size tried would be compiled anew, and torch gives up compiling at the ninth.
        latents, self._latents = self._latents, self._vq.latents
        try:
            return self._largest(size)
        finally:
            self._latents = latents
            torch.cuda.empty_cache()

    def _largest(self, size: int) -> int:
        found = SMALLEST_BATCH
        while found < LARGEST_TRIED:
            try:
                self.encode_crops([Image.new("RGB", (size, size))] * (2 * found), size, 2 * found)
            except RuntimeError:  # torch.OutOfMemoryError, and what cuDNN and pinned memory say instead
                break
            found *= 2
        return max(SMALLEST_BATCH, found // 2)

    def encode_images(
        self, images: Sequence[Image.Image], size: int, batch_size: int, plan: CropPlan = CENTER
    ) -> np.ndarray:
        """Return the codes of the pictures' crops, uint16 (n, n_crops, N), raster order. Raises ValueError as
        `encode_crops`."""
        self._check(size, batch_size)
        crops = [pixels for image in images for _, pixels in crops_of(image.convert("RGB"), size, plan)]
        codes_MN = self.encode_crops(crops, size, batch_size)
        return codes_MN.reshape(len(images), plan.count, codes_MN.shape[1])

    def encode_crops(self, crops: Sequence[Image.Image | np.ndarray], size: int, batch_size: int) -> np.ndarray:
        """Return the codes of squares of `size` pixels, RGB pictures or (size, size, 3) uint8, as uint16 (M, N), raster
        order.

        On a GPU every batch has `batch_size` squares, the last one filled up with grey. On a CPU squares go one by one:
        batches are no faster there, and their size moves latents by about 3e-6, enough to turn a code. Raises
        ValueError where `size` does not fit the tokenizer or `batch_size` is below 1.
        """
        return self.begin_crops(crops, size, batch_size)()

    def begin_crops(
        self, crops: Sequence[Image.Image | np.ndarray], size: int, batch_size: int
    ) -> Callable[[], np.ndarray]:
        """Start as `encode_crops` and return what waits for the codes, uint16 (M, N): a GPU works on them meanwhile, a
        CPU is done."""
        self._check(size, batch_size)
        at_once = 1 if self.device.type == "cpu" else batch_size
        begun = [self._begin(crops[start : start + at_once], at_once) for start in range(0, len(crops), at_once)]
        none_MN = np.empty((0, (size // self.spec.downsampling) ** 2), np.uint16)
        return lambda: np.concatenate([none_MN, *(wait() for wait in begun)])

    def _check(self, size: int, batch_size: int) -> None:
        step = self.spec.downsampling
        if size < step or size % step or batch_size < 1:
            raise ValueError(
                f"{self.spec.name}: got size {size} and batch {batch_size}, wanted a multiple of {step} and at least 1"
            )

    def _begin(self, crops: Sequence[Image.Image | np.ndarray], at_once: int) -> Callable[[], np.ndarray]:
        import torch

        bytes_BHWC = torch.full((at_once, *np.asarray(crops[0]).shape), GREY, dtype=torch.uint8, pin_memory=self.ahead)
        for row_HWC, crop in zip(bytes_BHWC.numpy(), crops, strict=False):
            row_HWC[:] = np.asarray(crop)
        x_BHWC = bytes_BHWC.to(self.device, non_blocking=True)  # bytes travel, floats are made where they are used
        x_BCHW = (
            x_BHWC.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
        )  # channels last in memory, as a GPU wants them
        if self.device.type == "cpu":
            x_BCHW = x_BCHW.contiguous()
        with torch.inference_mode(), _arithmetic(self.precision):
            codes_BN = self._encode(x_BCHW)[: len(crops)]
        if not self.ahead:
            return lambda: codes_BN.numpy().astype(np.uint16)
        # The way back is queued behind this batch alone: asking for the codes later would wait for the batches begun
        # since, too.
        host_BN = torch.empty(codes_BN.shape, dtype=codes_BN.dtype, pin_memory=True).copy_(codes_BN, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()

        def wait() -> np.ndarray:
            done.synchronize()
            return host_BN.numpy().astype(np.uint16)

        return wait

    @property
    def ahead(self) -> bool:
        """Tell whether codes are made beside this process, so that a batch can be begun before the last one's codes are
        taken."""
        return self.device.type == "cuda"

    def _encode(self, x_BCHW: "Tensor") -> "Tensor":
        import torch

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            z_BDhw = self._latents(x_BCHW)
        z_PD = z_BDhw.float().permute(0, 2, 3, 1).flatten(0, 2)
        with _arithmetic("fp32"):  # the comparison itself is always float32
            return self._vq.quantize.nearest(z_PD).view(len(x_BCHW), -1)


@contextlib.contextmanager
def _arithmetic(precision: Precision) -> Iterator[None]:
    """Set what CUDA makes of float32 convolutions and products (torch's own default for convolutions is TF32), and put
    it back."""
    from torch import backends

    places = (backends.cudnn.conv, backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    chosen_before = backends.cudnn.deterministic, backends.cudnn.benchmark
    try:
        for place in places:
            place.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        backends.cudnn.deterministic, backends.cudnn.benchmark = True, False
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value
        backends.cudnn.deterministic, backends.cudnn.benchmark = chosen_before
