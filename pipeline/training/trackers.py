"""Send the figures of a training run to TensorBoard and, where asked, to Weights & Biases."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.recipes.train import TrainConfig

GET = "pip install 'tessera-t2i[train]'"


class Trackers:
    """What figures are sent to; each line goes to all. Only the leading process has one."""

    def __init__(self, config: TrainConfig, folder: Path, step: int) -> None:
        """folder: RUN/train/TIER, of this machine. step: the last one that is done; what was sent of later ones is
        hidden."""
        self.notes: list[str] = []
        self._writer: Any = self._tensorboard(folder / "tensorboard", step) if config.tensorboard else None
        self._run: Any = self._wandb(config, folder) if config.wandb else None

    def _tensorboard(self, folder: Path, step: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.notes.append(
                f"no figures for TensorBoard: tensorboard is not installed ({GET}); metrics.jsonl has them"
            )
            return None
        return SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def _wandb(self, config: TrainConfig, folder: Path) -> Any:
        try:
            import wandb
        except ImportError:
            self.notes.append("no figures for Weights & Biases: wandb is not installed (pip install wandb)")
            return None
        name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]  # the same run when it is gone on with
        folder.mkdir(parents=True, exist_ok=True)  # without it the files go to the system's temporary folder
        settings = config.model_dump(mode="json")
        try:
            return wandb.init(project=config.wandb, id=name, resume="allow", dir=str(folder), config=settings)
        except wandb.Error as error:
            self.notes.append(
                f"no figures for Weights & Biases: {str(error).rstrip('.')}; WANDB_MODE=offline needs no account"
            )
            return None

    def add(self, line: Mapping[str, Any]) -> None:
        """Send one line of metrics.jsonl: its numbers, by name."""
        step, figures = int(line["step"]), dict(_figures(line))
        for name, value in figures.items() if self._writer is not None else ():
            self._writer.add_scalar(name, value, step)
        if self._run is not None:
            self._run.log(figures, step=step)

    def close(self) -> None:
        """Send what waits."""
        if self._writer is not None:
            self._writer.close()
        if self._run is not None:
            self._run.finish()


def _figures(line: Mapping[str, Any]) -> Any:
    """Yield (name, number) of a line, those of inner tables by NAME/KEY."""
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{key}", number) for key, number in value.items())
        elif isinstance(value, int | float) and name != "step":
            yield name, value
