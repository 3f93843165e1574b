"""Say what encoders and heads are, and how pictures and texts come in batches."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from manifests.weights import WeightsError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

Array = np.ndarray[Any, np.dtype[Any]]
Encoded = Mapping[str, Array]
"""What an encoder computed: name -> array whose first axis is the pictures."""
Item = TypeVar("Item")


Texts = Mapping[str, Sequence[str | None]]
"""The pictures' texts by what they are: `text`, the alt text; `caption`, the input's generated caption. None where
there is none."""


@dataclass(frozen=True)
class Compute:
    """How models run: pictures per batch, and arithmetic ("fp32", or "bf16" for autocast). Both are part of the scores'
    last bits."""

    batch_size: int = 32
    precision: str = "fp32"


class Encoder(Protocol):
    """Pictures and texts to embeddings or raw outputs: the expensive part, loaded once and run once for all heads that
    name it."""

    @property
    def name(self) -> str:
        """Its name, and that of its table [score.NAME]."""

    @property
    def preprocessing(self) -> str:
        """What becomes of a picture before the model sees it, for the manifest."""

    def encode(self, images: "Sequence[Image]", texts: Texts) -> Encoded:
        """Return the arrays that were asked for, a row per picture; NaN where a text was needed and is missing.

        Images are RGB, any number of them. On a CPU a row does not depend on the rows beside it.
        """
        ...


class Head(Protocol):
    """What an encoder computed to score columns: cheap."""

    @property
    def name(self) -> str:
        """Its name in a recipe's `score.use`."""

    def score(self, encoded: Encoded) -> dict[str, Array]:
        """Return column -> (N,) float32."""
        ...


@dataclass(frozen=True)
class Direct:
    """Head of an encoder whose output is the column itself."""

    name: str
    column: str

    def score(self, encoded: Encoded) -> dict[str, Array]:
        """Pass the encoder's array on."""
        return {self.column: encoded[self.column].astype(np.float32)}


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield runs of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def padded(rows: "Sequence[torch.Tensor]", size: int) -> "torch.Tensor":
    """Return the rows stacked and filled with zeros to `size` rows: equal shapes are added up in one order, so a row
    keeps its bits."""
    import torch

    stacked = torch.stack(list(rows))
    return torch.cat([stacked, stacked.new_zeros(size - len(rows), *stacked.shape[1:])])


def run_padded(
    model: "Callable[[torch.Tensor], torch.Tensor]",
    rows: "Sequence[torch.Tensor]",
    compute: Compute,
    finish: "Callable[[torch.Tensor], torch.Tensor]",
) -> Array:
    """Run a model over padded batches on the device and return what `finish` makes of its outputs, (N, ...) float32.

    `finish` gets the float32 outputs of a batch's own rows, without the padding.
    """
    import torch

    device, size, outputs = device_of(), compute.batch_size, []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=compute.precision == "bf16"):
        for batch in batches(rows, size):
            out = model(to_device(padded(batch, size), device))[: len(batch)].float()
            outputs.append(finish(out).cpu().numpy())
    return np.concatenate(outputs)


def device_of() -> "torch.device":
    """Return the GPU, where torch sees one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_device(batch: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """Return a batch on the device: to a GPU from pinned memory, pictures with their channels last in memory."""
    import torch

    if device.type == "cpu":
        return batch
    moved = batch.pin_memory().to(device, non_blocking=True)
    return moved.contiguous(memory_format=torch.channels_last) if moved.ndim == 4 else moved


def load_exactly(model: "torch.nn.Module", state: Mapping[str, Any], name: str) -> None:
    """Load a state dict whose names and shapes must be the model's. Raises WeightsError naming the first few that are
    not."""
    own = model.state_dict()
    faults = [f"no {key!r}" for key in own if key not in state] + [
        f"unknown {key!r}" for key in state if key not in own
    ]
    for key in own.keys() & state.keys():
        shape = tuple(getattr(state[key], "shape", ()))
        if shape != tuple(own[key].shape):
            faults.append(f"{key!r} is {shape}, wanted {tuple(own[key].shape)}")
    if faults:
        raise WeightsError(
            f"weights of {name} have another form: {'; '.join(sorted(faults)[:4])}" + ("; …" if len(faults) > 4 else "")
        )
    model.load_state_dict(dict(state))


def read_state(path: str, name: str) -> dict[str, Any]:
    """Return the tensors of a .safetensors file or of a PyTorch file of plain tensors; nothing in it is executed.

    Raises WeightsError for a file that is neither.
    """
    import pickle
    import zipfile

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if zipfile.is_zipfile(path) and any(
        member.endswith("/constants.pkl") for member in zipfile.ZipFile(path).namelist()
    ):
        raise WeightsError(
            f"weights of {name}: {path} is a TorchScript program, wanted a state dict; get the model's safetensors file"
        )
    try:
        state = (
            load_file(path)
            if path.endswith(".safetensors")
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise WeightsError(
            f"weights of {name}: {path} holds no plain tensors ({type(error).__name__}); wanted a state dict"
        ) from error
    if not isinstance(state, dict):
        raise WeightsError(f"weights of {name}: {path} holds a {type(state).__name__}, wanted a state dict")
    return state
