"""Train the GPT on code shards: `python -m pipeline.train [--recipe FILE] [--out DIR] [--set KEY=VALUE]…`.

Reads RUN/codes/TIER/, writes RUN/train/TIER/: checkpoints/, metrics.jsonl, loss.png, samples/, and for the demo
memorised.png and .json. Started again it goes on from the newest checkpoint, exactly: what a step reads, drops and
corrupts depends on the seed and the step's number alone. On several GPUs: `torchrun --nproc-per-node 8 -m
pipeline.train`.
"""

import argparse
import contextlib
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manifests.files import out_of_room
from manifests.roots import check_root, place_of
from manifests.store_requests import StoreError
from manifests.transaction import TransactionError
from pipeline.demo.pictures import has_emoji
from pipeline.evaluation.plots import save_loss_curve
from pipeline.execution.progress import clock
from pipeline.execution.run_folder import locked
from pipeline.gpt import Condition
from pipeline.loading.batch import Batch, joined
from pipeline.loading.order import draw
from pipeline.recipes.load import choose_recipe, load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.sampling.generate import Sampling
from pipeline.training.distributed import Machine, this_machine
from pipeline.training.job import Job, prepare
from pipeline.training.optim import set_rates
from pipeline.training.sample_sheets import Asked, SampleSheets
from pipeline.training.sharding import clip_gradients, exchanging
from pipeline.training.stopping import TrainError, stop_after_step
from tokenize_shards.samples import LoaderError
from tokenize_shards.vq import load_vq

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
PROMPTS = 8
"""Captions drawn at each sampling where `train.sample_prompts` names none."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 could not go on, 2 wrong use or recipe, 130 interrupted."""
    args = parse(arguments)
    machine = this_machine()
    try:
        with contextlib.ExitStack() as stack:
            return run(args, machine, stack)
    except (TrainError, LoaderError, TransactionError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if not out_of_room(error):
            raise
        print(
            "error: the disk is full; free some room and give the same command again: it goes on from the last"
            " checkpoint",
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        print("\nstopped; what was saved stays. The same command goes on from the last checkpoint.", file=sys.stderr)
        return INTERRUPTED
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return FAILED


def run(args: argparse.Namespace, machine: Machine, stack: contextlib.ExitStack) -> int:
    """Prepare the job, refusing what cannot work, and train; the run folder is held until `stack` closes."""
    try:
        recipe = read_recipe(args, machine.say)
        if machine.leads:
            check_root(recipe.root)
            stack.enter_context(locked(recipe.root))
        job = prepare(recipe, machine)
        sheets = open_sheets(job) if machine.leads and (job.config.sample_every or job.config.recall_pictures) else None
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return MISUSED
    introduce(job)
    stack.enter_context(job.saver)
    return train(job, sheets, stack.enter_context(stop_after_step()))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options --recipe, --out and --set."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.train", description="Train the GPT on the code shards of a run folder."
    )
    parser.add_argument(
        "--recipe", metavar="FILE", help="TOML file or bundled name; none: recipe.toml here, else the bundled demo"
    )
    parser.add_argument("--out", metavar="DIR", help="run folder or its URL, instead of the recipe's output.root")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a recipe value, such as train.steps=1000",
    )
    return parser.parse_args(arguments)


def read_recipe(args: argparse.Namespace, say: Any) -> Recipe:
    """Return the recipe that the options name, and say which it is. Raises RecipeError, RootError."""
    path, said = (args.recipe, f"recipe: {args.recipe}") if args.recipe else choose_recipe(has_emoji)
    say(said)
    if args.recipe:
        check_root(place_of(args.recipe), writes=False)  # it may lie in a store
    return load_recipe(path, [*args.set, *([f"output.root={json.dumps(args.out)}"] if args.out else [])])


def introduce(job: Job) -> None:
    """Say what is about to be trained, on what, and where."""
    count = sum(parameter.numel() for parameter in job.gpt.parameters())
    data, config = job.facts["data"], job.config
    stand_in = " (stand-in weights)" if job.tokenizer.stand_in else ""
    capped = f", {job.pictures.samples:,} of them used" if job.pictures.samples != data["samples"] else ""
    job.machine.say(
        f"training {config.model} ({count / 1e6:,.1f} M parameters) on {data['samples']:,} pictures of tier"
        f" {config.tier!r}{capped}: codes {job.tokenizer.name}{stand_in} {job.tokenizer.grid}x{job.tokenizer.grid},"
        f" {job.condition.says}; {job.last:,} steps of {config.batch} on {job.machine.world} x"
        f" {job.machine.device.type}, {'bf16' if job.bf16 else 'fp32'}"
    )


# ---------------------------------------------------------------- the loop


@dataclass
class Meter:
    """Loss and speed since the last progress line; the loss stays on the device until it is asked for."""

    started: float = field(default_factory=time.monotonic)
    since: float = field(default_factory=time.monotonic)
    steps: int = 0
    loss: Tensor | float = 0.0

    def add(self, loss: Tensor) -> None:
        """Count one step."""
        self.steps, self.loss = self.steps + 1, self.loss + loss


def train(job: Job, sheets: SampleSheets | None, stop: dict[str, bool]) -> int:
    """Take every step that is left, with checkpoints, progress lines and samples on the way; return the exit code."""
    config, meter = job.config, Meter()
    if job.step >= job.last:
        job.machine.say(f"nothing to train: {job.step:,} of {job.last:,} steps are done")
    elif job.machine.leads:
        job.metrics.keep_until(job.step)
    job.model.train()
    for batch in job.pictures.steps(job.step):
        if job.step >= job.last:
            break
        loss, norm = take_step(job, batch)
        job.step += 1
        job.saver.check()
        meter.add(loss)
        last = job.step == job.last or out_of_time(job, meter)
        stopped = agreed(job, stop["asked"])
        if job.step % config.log_every == 0 or last or stopped:
            log(job, meter, norm)
        if job.step % config.checkpoint_every == 0 or last or stopped:
            checkpoint(job)
        if stopped:
            job.machine.say(f"stopped after step {job.step:,}, which is saved; the same command goes on from there")
            return INTERRUPTED
        if sheets and config.sample_every and (job.step % config.sample_every == 0 or last):
            sheets.sheet(job.folder / "samples" / f"{job.step:07d}.png", job.step)
        if last:
            break
    if job.machine.leads:
        finish(job, sheets)
    return DONE


def take_step(job: Job, batch: Batch) -> tuple[Tensor, Tensor]:
    """Do one optimizer step on this process's share; return its loss in nats per code and the gradient norm."""
    config, device = job.config, job.machine.device
    torch.manual_seed(draw("step", config.seed, job.machine.rank, job.step) >> 1)
    set_rates(job.optimizers, config, job.step)
    size = config.micro_batch or len(batch)
    parts = [slice(start, min(start + size, len(batch))) for start in range(0, len(batch), size)]
    total = torch.zeros((), device=device)
    for number, part in enumerate(parts):
        codes_BN, condition = collate(job, batch, part)
        inputs_BN = corrupted(codes_BN) if config.corruption == "uniform" else None
        with exchanging(job.model, last=number + 1 == len(parts)):
            with torch.autocast(device.type, torch.bfloat16, enabled=job.bf16):
                loss = job.model(codes_BN, condition, inputs_BN) * ((part.stop - part.start) / len(batch))
            loss.backward()
        total += loss.detach()
    norm = clip_gradients(job.gpt.parameters(), config.clip)
    for optimizer in job.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return total, norm


def collate(job: Job, batch: Batch, part: slice) -> tuple[Tensor, Condition]:
    """Return a part's codes (B, N) and condition on the device; features that the shard lacks are computed now."""
    condition = job.condition.of(batch.captions_B[part], batch.features_B[part])
    codes_BN = torch.from_numpy(batch.codes_BN[part])
    device = job.machine.device
    on_device = (
        condition.to(device) if isinstance(condition, Tensor) else (condition[0].to(device), condition[1].to(device))
    )
    return codes_BN.to(device), on_device


def corrupted(codes_BN: Tensor) -> Tensor:
    """Return the codes with some replaced, at a rate drawn from U(0, 1) per picture, by another picture's code at the
    same place.

    Without it a small set is learned by its first codes, and the text is ignored.
    """
    batch = len(codes_BN)
    rows_BN = torch.arange(batch, device=codes_BN.device)[:, None].expand_as(codes_BN)
    donors_BN = (rows_BN + torch.randint(1, max(2, batch), codes_BN.shape, device=codes_BN.device)) % batch
    replaced_BN = torch.rand(codes_BN.shape, device=codes_BN.device) < torch.rand(batch, 1, device=codes_BN.device)
    return torch.where(replaced_BN, codes_BN.gather(0, donors_BN), codes_BN)


def out_of_time(job: Job, meter: Meter) -> bool:
    """Tell whether `train.seconds` are over, by the leading process's clock."""
    limit = job.config.seconds
    return limit is not None and agreed(job, job.machine.leads and time.monotonic() - meter.started >= limit)


def agreed(job: Job, here: bool) -> bool:
    """Tell whether any process says so, so that all stop after the same step."""
    if job.machine.world == 1:
        return here
    flag = torch.tensor(int(here), device=job.machine.device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag)


# ---------------------------------------------------------------- what it leaves


def log(job: Job, meter: Meter, norm: Tensor) -> None:
    """Print a progress line and append it to metrics.jsonl. Raises TrainError when the loss is no number."""
    loss = float(meter.loss) / meter.steps
    now = time.monotonic()
    pace = (now - meter.since) / meter.steps
    tokens = job.config.batch * job.tokenizer.grid**2 / pace
    done, left = clock(now - meter.started), clock(pace * (job.last - job.step))
    job.machine.say(f"  step {job.step:,}/{job.last:,}  loss {loss:.3f}  {tokens:,.0f} tokens/s  {done}  ETA {left}")
    if not math.isfinite(loss):
        raise TrainError(
            f"the loss is {loss} near step {job.step}: nothing was saved since the last checkpoint in"
            f" {job.folder / 'checkpoints'}"
        )
    if job.machine.leads:
        rates = [group["lr"] for optimizer in job.optimizers for group in optimizer.param_groups[:1]]
        line = {
            "step": job.step,
            "loss": round(loss, 6),
            "grad_norm": round(float(norm), 6),
            "lr": rates,
            "tokens_per_s": round(tokens),
        }
        job.metrics.add(line)
    meter.since, meter.steps, meter.loss = now, 0, 0.0


def checkpoint(job: Job) -> None:
    """Save the state after `job.step` steps, by the leading process."""
    state = {**job.facts, "step": job.step, "pictures_read": job.step * job.config.batch}

    job.saver.save(job.trained, state)
    if job.machine.leads:
        job.metrics.publish()


def open_sheets(job: Job) -> SampleSheets:
    """Load the tokenizer that turns samples into pictures. Raises WeightsError."""
    loaded = load_vq(*job.vq)
    loaded.vq.to(job.machine.device)
    config = job.config
    sampling = Sampling(
        config.sample_cfg_scale, config.sample_top_k, config.sample_temperature, config.sample_top_p, config.seed
    )
    return SampleSheets(job.gpt, job.condition, loaded, sampling, prompts(job))


def prompts(job: Job) -> list[str]:
    """Return what to draw: the recipe's prompts, else the captions or classes of the first pictures."""
    if job.config.sample_prompts:
        return job.config.sample_prompts
    return job.pictures.batch(0, min(PROMPTS, job.pictures.samples)).captions_B


def finish(job: Job, sheets: SampleSheets | None) -> None:
    """Draw the loss curve and, where asked for, measure the recall; say where everything is."""
    said = save_loss_curve(job.folder / "loss.png", job.metrics.path, f"{job.config.model} on tier {job.config.tier}")
    if said:
        job.machine.say(said)
    if sheets and job.config.recall_pictures:
        epoch = job.pictures.batch(0, job.pictures.samples)
        training = joined([epoch], 0, np.argsort(epoch.uids_B))
        found = sheets.recall(job.folder, training, Asked(job.step, job.config.recall_pictures, job.root / "pairs"))
        before = f"recall: measured before, see {job.folder / 'memorised.json'}"
        job.machine.say("\n".join(found.lines()) if found else before)
    job.machine.say(f"results: {job.folder}")


if __name__ == "__main__":
    sys.exit(main())
