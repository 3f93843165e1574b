"""Train the GPT on code shards: `python -m pipeline.train [--recipe FILE] [--out DIR] [--set KEY=VALUE]…`.

Reads RUN/codes/TIER/, writes RUN/train/TIER/: checkpoints/, metrics.jsonl, tensorboard/, loss.png, samples/, and for
the demo memorised.png and .json. Started again it goes on from the newest checkpoint, exactly: what a step reads, drops
and corrupts depends on the seed and the step's number alone. On several GPUs: `torchrun --nproc-per-node 8 -m
pipeline.train`.
"""

import argparse
import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from pipeline.execution.run_folder import locked
from pipeline.gpt import Condition
from pipeline.loading.batch import Batch, joined
from pipeline.loading.order import draw
from pipeline.recipes.load import choose_recipe, load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.training.budget import GB, check_fits, hours
from pipeline.training.distributed import Machine, this_machine
from pipeline.training.feeder import Fed
from pipeline.training.job import Job, foresee, prepare, rehearse
from pipeline.training.optim import set_rates
from pipeline.training.progress import Meter, picture_flops
from pipeline.training.safety import apply
from pipeline.training.sample_sheets import Asked, SampleSheets, open_sheets
from pipeline.training.sharding import clip_gradients, exchanging
from pipeline.training.stopping import TrainError, stop_after_step
from pipeline.training.trackers import Trackers
from tokenize_shards.samples import LoaderError

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


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
        plan = foresee(recipe, machine, args.gpus)
        machine.say("\n".join(plan.lines()))
        if memory := args.gpu_memory * GB if args.gpu_memory else machine.memory:
            check_fits(plan, memory, recipe.train.batch)
        if args.dry_run:
            machine.say("\n".join(rehearse(recipe, machine)))
            return DONE
        if machine.leads:
            check_root(recipe.root)
            stack.enter_context(locked(recipe.root))
        job = prepare(recipe, machine)
        draws = job.config.sample_every or job.config.recall_pictures
        sheets = open_sheets(job) if machine.leads and draws else None
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return MISUSED
    introduce(job)
    stack.enter_context(job.saver)
    return train(job, sheets, stack.enter_context(stop_after_step()))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options --recipe, --out, --set, --dry-run, --gpus and --gpu-memory."""
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
    parser.add_argument("--dry-run", action="store_true", help="say what the run takes, refuse what cannot work, stop")
    parser.add_argument("--gpus", type=_cards, metavar="N", help="foresee a run on so many cards instead of these")
    parser.add_argument("--gpu-memory", type=_gigabytes, metavar="GB", help="foresee a run on such cards")
    args = parser.parse_args(arguments)
    if not args.dry_run and (args.gpus or args.gpu_memory):
        parser.error("--gpus and --gpu-memory foresee a run on another machine: give --dry-run with them")
    return args


def _cards(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"got {word!r}, wanted a whole number from 1 on")
    return int(word)


def _gigabytes(word: str) -> float:
    if not math.isfinite(number := float(word)) or number <= 0:
        raise argparse.ArgumentTypeError(f"got {word!r}, wanted a number above 0")
    return number


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
    if job.step < job.last:
        job.machine.say(hours(job.metrics.path, config.batch, job.last - job.step))


# ---------------------------------------------------------------- the loop


def train(job: Job, sheets: SampleSheets | None, stop: dict[str, bool]) -> int:
    """Take every step that is left, with checkpoints, progress lines and samples on the way; return the exit code."""
    meter, trackers = new_meter(job), open_trackers(job)
    batches = job.pictures.steps(job.step)
    job.model.train()
    with contextlib.closing(batches), contextlib.closing(trackers):  # type: ignore[type-var]  # a generator
        steps = job.feeder.feed(timed(batches, meter))
        while job.step < job.last:
            parts = next(steps)
            loss, norm, good = take_step(job, parts)
            meter.flops += sum(len(part.codes_BN) * picture_flops(job.gpt.spec, part.text_tokens) for part in parts)
            job.step += 1
            meter.add(loss, good)
            job.saver.check()
            look(job)
            last = job.step == job.last or out_of_time(job, meter)
            stopped = agreed(job, stop["asked"])
            leave(job, (meter, norm, trackers), last=last or stopped)
            if stopped:
                job.machine.say(f"stopped after step {job.step:,}, which is saved; the same command goes on from there")
                return INTERRUPTED
            if job.config.sample_every and (job.step % job.config.sample_every == 0 or last):
                sheet(job, sheets)
            if last:
                break
    finish(job, sheets)
    return DONE


def leave(job: Job, told: tuple[Meter, Tensor, Trackers], *, last: bool) -> None:
    """Print a progress line, measure the validation loss, save a checkpoint: each where it is due, or the last."""
    meter, norm, trackers = told
    config = job.config
    if job.step % config.log_every == 0 or last:
        log(job, meter, norm, trackers)
    if job.held_out and (job.step % config.validate_every == 0 or last):
        validate(job, trackers)
    job.due = job.due or job.step % config.checkpoint_every == 0
    if last or (job.due and not job.watch.look(wait=True).in_a_row):  # where steps go wrong, what is saved is older
        checkpoint(job)


def take_step(job: Job, parts: list[Fed]) -> tuple[Tensor, Tensor, Tensor]:
    """Do one optimizer step on this process's share; return the mean loss of all in nats per code, the gradient norm,
    and whether the step was good and applied. All stay on the device."""
    config, device = job.config, job.machine.device
    torch.manual_seed(draw("step", config.seed, job.machine.rank, job.step) >> 1)
    set_rates(job.optimizers, config, job.step)
    pictures, total = sum(len(part.codes_BN) for part in parts), torch.zeros((), device=device)
    for number, (codes_BN, condition, dense) in enumerate(parts):
        inputs_BN = corrupted(codes_BN) if config.corruption == "uniform" else None
        with exchanging(job.model, last=number + 1 == len(parts)):
            with torch.autocast(device.type, torch.bfloat16, enabled=job.bf16):
                loss = job.model(codes_BN, condition, inputs_BN, dense=dense) * (len(codes_BN) / pictures)
            loss.backward()
        total += loss.detach()
    norm = clip_gradients(job.gpt.parameters(), config.clip)
    loss, good = job.watch.check(total, norm)
    apply(job.optimizers, good)
    if job.average:
        job.average.update(good, job.step)
    return loss, norm, good


def timed(batches: Iterator[Batch], meter: Meter) -> Iterator[Batch]:
    """Pass batches through, and count the time for which the loader is waited for."""
    while True:
        asked = time.monotonic()
        batch = next(batches)
        meter.waited += time.monotonic() - asked
        yield batch


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


def look(job: Job) -> None:
    """End the run where too many steps in a row were skipped, as far as the device has told. Raises TrainError."""
    counts = job.watch.look()
    if counts.in_a_row >= job.config.max_skipped:
        raise TrainError(
            f"{counts.in_a_row} steps in a row were skipped, up to about step {job.step:,}: {counts.broken} in all for"
            f" a loss or gradient that is not finite, {counts.spikes} for a norm above {job.config.spike:g} running"
            f" medians. None of them was applied, and the last checkpoint in {job.folder / 'checkpoints'} stands; look"
            " at train.lr, train.warmup and the features, or raise train.max_skipped"
        )


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


def new_meter(job: Job) -> Meter:
    """Return a meter of this run's speed."""
    return Meter(job.machine.device, job.config.batch, job.tokenizer.grid**2)


def open_trackers(job: Job) -> Trackers:
    """Drop the lines of steps that will be taken again, and open what figures are sent to, by the leading process."""
    works = job.step < job.last
    if not works:
        job.machine.say(f"nothing to train: {job.step:,} of {job.last:,} steps are done")
    elif job.machine.leads:
        job.metrics.keep_until(job.step)
    quiet = job.config.model_copy(update={"tensorboard": False, "wandb": None})
    trackers = Trackers(job.config if works and job.machine.leads else quiet, job.metrics.local.parent, job.step)
    for note in trackers.notes:
        job.machine.say(note)
    return trackers


def log(job: Job, meter: Meter, norm: Tensor, trackers: Trackers) -> None:
    """Print a progress line, append it to metrics.jsonl and send it to the trackers."""
    counts, speed = job.watch.look(wait=True), meter.read(job.last - job.step)
    rate = job.optimizers[0].param_groups[0]["lr"]
    skipped = (
        f"  skipped {counts.skipped} ({counts.broken} not finite, {counts.spikes} spikes)" if counts.skipped else ""
    )
    job.machine.say(
        f"  step {job.step:,}/{job.last:,}  loss {speed.loss:.3f}  norm {float(norm):.2f}  lr {rate:.2g}"
        f"  {speed.words()}{skipped}"
    )
    line = {
        "step": job.step,
        "loss": number(speed.loss, 6),
        "grad_norm": number(float(norm), 6),
        "lr": rate,
        "skipped": counts.skipped,
        **speed.record(),
    }
    tell(job, line, trackers)


def number(value: float, digits: int) -> float | None:
    """Return a number as JSON has it: None for one that is not finite."""
    return round(value, digits) if math.isfinite(value) else None


def tell(job: Job, line: dict[str, Any], trackers: Trackers) -> None:
    """Write a line of figures and send it to the trackers, by the leading process."""
    if job.machine.leads:
        job.metrics.add(line)
        trackers.add(line)


def validate(job: Job, trackers: Trackers) -> None:
    """Measure the loss on the pictures that are held out, with the running average where there is one."""
    assert job.held_out is not None

    def nats(codes_BN: Tensor, condition: Condition, dense: bool) -> Tensor:
        with torch.autocast(job.machine.device.type, torch.bfloat16, enabled=job.bf16):
            nats_B: Tensor = job.gpt(codes_BN, condition, by_row=True, dense=dense)
        return nats_B

    job.model.eval()
    with job.averaged():
        found = job.held_out.measure(nats, job.feeder.part)
    job.model.train()
    job.machine.say(f"  step {job.step:,}  {found.line()}")
    tell(job, found.record(job.step), trackers)


def checkpoint(job: Job) -> None:
    """Save the state after `job.step` steps. Raises TrainError for one that is not finite."""
    state = {**job.facts, "step": job.step, "pictures_read": job.step * job.config.batch, "watch": job.watch.state()}
    job.saver.save(job.trained, state)
    job.due = False
    if job.machine.leads:
        job.metrics.publish()


def sheet(job: Job, sheets: SampleSheets | None) -> None:
    """Draw the sample sheet of this step, by the leading process, from whole weights that all give it."""
    gpt = job.drawing()
    if sheets and gpt:
        replace(sheets, gpt=gpt).sheet(job.folder / "samples" / f"{job.step:07d}.png", job.step)


def finish(job: Job, sheets: SampleSheets | None) -> None:
    """Draw the loss curve and, where asked for, measure the recall; say what was done and where everything is."""
    gpt = job.drawing() if job.config.recall_pictures else None
    if not job.machine.leads:
        return
    said = save_loss_curve(job.folder / "loss.png", job.metrics.path, f"{job.config.model} on tier {job.config.tier}")
    if said:
        job.machine.say(said)
    if sheets and gpt:
        epoch = job.pictures.batch(0, job.pictures.samples)
        training = joined([epoch], 0, np.argsort(epoch.uids_B))
        asked = Asked(job.step, job.config.recall_pictures, job.root / "pairs")
        found = replace(sheets, gpt=gpt).recall(job.folder, training, asked)
        before = f"recall: measured before, see {job.folder / 'memorised.json'}"
        job.machine.say("\n".join(found.lines()) if found else before)
    for line in job.metrics.summary():
        job.machine.say(line)
    job.machine.say(f"results: {job.folder}")


if __name__ == "__main__":
    sys.exit(main())
