"""Train a small GPT on one process or on two, whole or spread: `python -m tests.support.spread_training FOLDER` is one
of two."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed

from pipeline.gpt import build_gpt
from pipeline.training.checkpoint import agreed_checkpoint, load_checkpoint
from pipeline.training.distributed import Machine, this_machine, wrapped
from pipeline.training.optimizer_states import Trained
from pipeline.training.saving import CheckpointError, Saver
from pipeline.training.sharding import Placement, clip_gradients, exchanging, part, placed, whole_gpt

BATCH, STEPS = 4, 6
HERE = Machine(0, 1, torch.device("cpu"))
OPTIONS = {"vocab": 50, "cond_len": 6, "cond_dim": 16}
NO_DROPOUT = {f"{kind}_dropout": 0.0 for kind in ("token", "resid", "ffn", "cond")}


class Run:
    """One training: a small GPT, AdamW with decay, a running average, losses by step."""

    def __init__(self, machine=HERE, parallel="ddp", parts=1, recompute=False):
        torch.manual_seed(5)
        gpt = build_gpt("GPT-demo", "text", 4, **OPTIONS, **NO_DROPOUT)
        torch.nn.init.normal_(gpt.output.weight, std=0.1)
        self.machine, self.parts, self.losses = machine, parts, []
        self.gpt = placed(gpt, machine, Placement(parallel, recompute))
        optimizer = torch.optim.AdamW(self.gpt.parameters(), lr=1e-3, weight_decay=0.05)
        ema = {name: parameter.detach().clone() for name, parameter in self.gpt.named_parameters()}
        self.trained = Trained(self.gpt, [optimizer], ema)
        self.model = wrapped(self.gpt, machine, compiled=False).train()

    def take(self, *steps):
        """Take steps: the same pictures whatever the processes are."""
        for step in steps:
            seeded = torch.Generator().manual_seed(step)
            codes = torch.randint(50, (BATCH, 16), generator=seeded)
            features = torch.randn(BATCH, 6, 16, generator=seeded)
            share = BATCH // self.machine.world
            own = range(self.machine.rank * share, (self.machine.rank + 1) * share)
            total, size = torch.zeros(()), share // self.parts
            for number in range(self.parts):
                rows = list(own[number * size : (number + 1) * size])
                with exchanging(self.model, last=number + 1 == self.parts):
                    loss = self.model(codes[rows], (features[rows], torch.full((size,), 6))) / self.parts
                    loss.backward()
                total += loss.detach()
            if self.machine.world > 1:
                torch.distributed.all_reduce(total)
            self.losses.append(float(total) / self.machine.world)
            self.norm = float(clip_gradients(self.gpt.parameters(), 0.5))
            self.trained.optimizers[0].step()
            self.trained.optimizers[0].zero_grad(set_to_none=True)
            for name, parameter in self.gpt.named_parameters():
                part(self.trained.ema[name]).lerp_(part(parameter.detach()), 0.1)
        return self

    def save(self, root, step, saver=None):
        state = {"step": step, "world": self.machine.world}
        with saver or Saver(root, self.machine, keep=3) as saving:
            saving.save(self.trained, state)

    def load(self, root):
        checkpoint = agreed_checkpoint(root, self.machine)
        load_checkpoint(checkpoint, self.trained)
        return self


def failing(run, folder):
    """Return what a save says whose place cannot be written, and one of a state that is not finite."""
    said = []
    folder.write_text("a file in the folder's place") if run.machine.leads else None
    try:
        run.save(folder, 1)
    except (OSError, CheckpointError) as error:
        said.append(f"{type(error).__name__}: {error}")
    if not run.machine.leads:
        part(run.gpt.norm.weight.detach()).fill_(float("nan"))
    try:
        run.save(folder.with_name("broken"), 2)
    except CheckpointError as error:
        said.append(str(error))
    return said


def main(folder):
    """What one of two processes does: both kinds from the start, then go on from what one process left."""
    torch.set_num_threads(1)
    machine = this_machine()
    whole = Run(machine).take(*range(STEPS))
    spread = Run(machine, "fsdp", parts=2, recompute=True)
    with Saver(folder / "spread", machine, keep=2) as saver:
        for step in range(STEPS):
            spread.take(step)
            saver.check()
            saver.save(spread.trained, {"step": step + 1, "world": 2})
    later = Run(machine, "fsdp").load(folder / "one").take(2, 3)
    later.save(folder / "two", 4)
    copy = whole_gpt(later.gpt, later.trained.ema, machine)
    again = Run(machine).load(folder / "spread")  # spread before, whole on each now
    told = {
        "whole": whole.losses,
        "spread": spread.losses,
        "norms": [whole.norm, spread.norm],
        "later": later.losses,
        "again": float(again.gpt.norm.weight.detach().sum()),
        "copy": None if copy is None else float(copy.norm.weight.detach().sum()),
        "failures": failing(later, folder / "place"),
    }
    (folder / f"{machine.rank}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
