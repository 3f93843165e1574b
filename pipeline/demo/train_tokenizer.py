"""Train VQ-demo, a tokenizer of 0.7 million parameters, on OpenMoji drawings: `python -m
pipeline.demo.train_tokenizer`.

Shapes: B pictures, C channels, H W pixels, h w the code grid, P = B*h*w positions, D width of a code vector, K codes.
Two cores and ten minutes: a plain autoencoder for the first fifth of the time, then k-means on its latents makes the
codebook, which follows the latents as a running average. The recipe's numbers come from short trials on held-out
drawings. On a busy machine set OMP_NUM_THREADS=1: two threads that wait for one another were seen to be five times
slower.
"""

import argparse
import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from filters.images.decode import ImageFault, ImageLimits, open_picture
from manifests.files import write_bytes
from pipeline.demo.pictures import OPENMOJI, openmoji, render
from tokenize_shards.catalog import DEMO_WEIGHTS
from tokenize_shards.images import center_crop, to_tensor
from tokenize_shards.vq import VQ, build_vq, load_vq

SIZE = 64
"""Side of a training picture in pixels; VQ-demo is convolutional, so other multiples of 8 work too."""
KMEANS_POSITIONS = 60_000
KMEANS_ROUNDS = 30
EVAL_BATCH = 32
DEAD = 0.1
"""A code is dead when it is chosen less often than this share of the mean."""
REVIVED_PER_STEP = 4
CARD_SAYS = (
    "The tokenizer of the demo: real trained weights, small enough to come with the code. It knows flat drawings on"
    " white, and nothing else; photographs come out as coloured blocks. Made by `pipeline/demo/train_tokenizer.py`."
)


@dataclass(frozen=True)
class Recipe:
    """How long and how to train; learning rates fall to zero along a half cosine."""

    seconds: float = 600.0
    steps: int = 0  # where given, training ends after so many steps instead: the way to repeat a run exactly
    seed: int = 0
    batch: int = 8
    muon_lr: float = 0.05  # inner convolutions
    adam_lr: float = 2e-3  # all other parameters
    plain: float = 0.2  # share of the time without a codebook
    chroma: float = 0.5  # weight of the colour term
    commitment: float = 0.25  # weight of the pull of latents towards their codes
    decay: float = 0.99  # of the codebook's running averages, per step
    revive: float = 0.8  # share of the time until which unused codes are placed anew
    held_out: float = 0.05  # share of the pictures


@dataclass(frozen=True)
class Pictures:
    """Training and held-out pictures, uint8 (n, SIZE, SIZE, 3), and where they are from."""

    train: np.ndarray
    held_out: np.ndarray
    source: str


@dataclass(frozen=True)
class Trained:
    """What a training took."""

    steps: int
    seconds: float
    cpu_seconds: float


def gather(folder: Path | None, recipe: Recipe) -> Pictures:
    """Return OpenMoji's drawings, or a folder's pictures, split by a hash of (key, seed). Raises ValueError where they
    are too few."""
    if folder is None:
        source = f"{OPENMOJI}: drawings without skin-tone variants, on white"
        keyed = [(emoji.key, np.asarray(render(emoji.svg, SIZE))) for emoji in openmoji()]
    else:
        source = f"pictures of the folder {folder.name}: centre crops"
        keyed = list(_folder_pictures(folder))
    parts: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for key, pixels in keyed:
        drawn = int.from_bytes(hashlib.sha256(f"{key}|{recipe.seed}".encode()).digest()[:8], "big") / 2**64
        parts[drawn < recipe.held_out].append(pixels)
    if not parts[True] or len(parts[False]) < recipe.batch:
        raise ValueError(
            f"{source}: {len(keyed)} pictures found, wanted some hundreds, so that {recipe.held_out:.0%} can be"
            " held out"
        )
    return Pictures(np.stack(parts[False]), np.stack(parts[True]), source)


def _folder_pictures(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            picture = open_picture(path.read_bytes(), ImageLimits())
        except ImageFault as fault:
            print(f"  left out: {path} ({fault.reason})")
            continue
        yield path.relative_to(folder).as_posix(), np.asarray(center_crop(picture, SIZE))


def reconstruction_loss(got_BCHW: Tensor, wanted_BCHW: Tensor, chroma: float) -> Tensor:
    """Return L1 + L2 of the pixels plus `chroma` times L1 + L2 of their difference from grey, else small models lose
    the colours."""
    off_BCHW = got_BCHW - wanted_BCHW
    colour_BCHW = off_BCHW - off_BCHW.mean(1, keepdim=True)
    return (
        off_BCHW.abs().mean()
        + off_BCHW.square().mean()
        + chroma * (colour_BCHW.abs().mean() + colour_BCHW.square().mean())
    )


class Optimizers:
    """Muon for the inner convolutions, as matrices (out, in*3*3); AdamW for the rest."""

    def __init__(self, vq: VQ, recipe: Recipe) -> None:
        edges = {vq.encoder.conv_in.weight, vq.decoder.conv_out.weight, vq.quant_conv.weight, vq.post_quant_conv.weight}
        self.inner = [p for p in vq.parameters() if p.ndim == 4 and p not in edges]
        inner = set(self.inner)
        rest = [p for name, p in vq.named_parameters() if p not in inner and not name.startswith("quantize.")]
        self.matrices = [nn.Parameter(p.data.view(len(p), -1)) for p in self.inner]  # the same memory, as Muon wants it
        self.steppers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(self.matrices, lr=recipe.muon_lr, weight_decay=0.0),
            torch.optim.AdamW(rest, lr=recipe.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.peaks = [recipe.muon_lr, recipe.adam_lr]

    def step(self, done: float) -> None:
        """Take a step with the learning rates of the moment `done` (0..1), and clear the gradients."""
        for parameter, matrix in zip(self.inner, self.matrices, strict=True):
            matrix.grad = None if parameter.grad is None else parameter.grad.view(len(parameter), -1)
        for stepper, peak in zip(self.steppers, self.peaks, strict=True):
            for group in stepper.param_groups:
                group["lr"] = peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
            stepper.step()
            stepper.zero_grad()
        for parameter in self.inner:
            parameter.grad = None


class RunningCodebook:
    """The codebook as running averages of the latents that chose each code."""

    def __init__(self, vq: VQ, decay: float) -> None:
        self.vq, self.decay = vq, decay
        self.counts_K = torch.ones(vq.spec.codebook_size)
        self.sums_KD = vq.quantize.units().clone()

    @torch.no_grad()
    def start(self, z_PD: Tensor, seed: int) -> None:
        """Set the codes to the centres of spherical k-means on unit vectors (P, D)."""
        generator = torch.Generator().manual_seed(seed)
        size = self.vq.spec.codebook_size
        centres_KD = z_PD[torch.randperm(len(z_PD), generator=generator)[:size]].clone()
        for _ in range(KMEANS_ROUNDS):
            cosine_P, code_P = (z_PD @ centres_KD.T).max(1)
            sums_KD = torch.zeros_like(centres_KD).index_add_(0, code_P, z_PD)
            empty_K = torch.bincount(code_P, minlength=size) == 0
            worst = cosine_P.argsort()[: int(empty_K.sum())]
            sums_KD[empty_K] = z_PD[worst]
            centres_KD = F.normalize(sums_KD, dim=-1)
        self.sums_KD = centres_KD
        self.counts_K = torch.ones(size)
        self._write()

    @torch.no_grad()
    def quantise(self, z_BDhw: Tensor, *, revive: bool) -> Tensor:
        """Return the nearest codes' vectors (B, D, h, w) of unit latents, and move those codes towards the latents."""
        z_PD = z_BDhw.permute(0, 2, 3, 1).flatten(0, 2)
        code_P = self.vq.quantize.nearest(z_PD)
        q_PD = self.vq.quantize.vectors(code_P)
        self.counts_K.lerp_(torch.bincount(code_P, minlength=len(self.counts_K)).float(), 1 - self.decay)
        self.sums_KD.lerp_(torch.zeros_like(self.sums_KD).index_add_(0, code_P, z_PD), 1 - self.decay)
        if revive:
            self._revive(z_PD, (z_PD * q_PD).sum(-1))
        self._write()
        return q_PD.view(len(z_BDhw), *z_BDhw.shape[2:], -1).permute(0, 3, 1, 2)

    def _revive(self, z_PD: Tensor, cosine_P: Tensor) -> None:
        """Place codes that nothing chooses, a few at a time, on the worst served latents."""
        fair = len(z_PD) / len(self.counts_K)
        dead = torch.nonzero(self.counts_K < DEAD * fair).flatten()[:REVIVED_PER_STEP]
        self.sums_KD[dead] = fair * z_PD[cosine_P.argsort()[: len(dead)]]
        self.counts_K[dead] = fair

    def _write(self) -> None:
        self.vq.quantize.embedding.weight.data.copy_(F.normalize(self.sums_KD, dim=-1))


def batches(images: np.ndarray, recipe: Recipe) -> Iterator[Tensor]:
    """Yield shuffled, randomly mirrored training batches (B, 3, H, W) in [-1, 1] for ever."""
    generator = np.random.default_rng(recipe.seed)
    x_NCHW = to_tensor(list(images))
    while True:
        order = generator.permutation(len(images))
        for start in range(0, len(order) - recipe.batch + 1, recipe.batch):
            x_BCHW = x_NCHW[order[start : start + recipe.batch]]
            mirrored = torch.from_numpy(generator.random(len(x_BCHW)) < 0.5)
            yield torch.where(mirrored[:, None, None, None], x_BCHW.flip(3), x_BCHW)


def unit_latents(vq: VQ, x_BCHW: Tensor) -> Tensor:
    """Return latents (B, D, h, w) of length 1 along D."""
    return F.normalize(vq.latents(x_BCHW), dim=1)


def prepare(recipe: Recipe) -> VQ:
    """Return an untrained VQ-demo whose residual blocks start as the identity."""
    torch.manual_seed(recipe.seed)
    vq = build_vq("VQ-demo").train()
    for name, parameter in vq.named_parameters():
        if name.endswith("conv2.weight") or name.endswith("proj_out.weight"):
            nn.init.zeros_(parameter)
    return vq


def train(vq: VQ, pictures: Pictures, recipe: Recipe) -> Trained:
    """Train in place until the recipe's time or steps are used up."""
    optimizers, codebook = Optimizers(vq, recipe), RunningCodebook(vq, recipe.decay)
    started, cpu_before, quantised, steps = time.monotonic(), time.process_time(), False, 0
    for x_BCHW in batches(pictures.train, recipe):
        done = steps / recipe.steps if recipe.steps else (time.monotonic() - started) / recipe.seconds
        if done >= 1:
            break
        if not quantised and done >= recipe.plain:
            codebook.start(sample_latents(vq, pictures.train, recipe.seed), recipe.seed)
            quantised = True
        z_BDhw = unit_latents(vq, x_BCHW)
        loss = torch.zeros(())
        if quantised:
            q_BDhw = codebook.quantise(z_BDhw.detach(), revive=done < recipe.revive)
            loss = recipe.commitment * (z_BDhw - q_BDhw).square().mean()
            z_BDhw = z_BDhw + (q_BDhw - z_BDhw).detach()
        loss = loss + reconstruction_loss(vq.pictures(z_BDhw), x_BCHW, recipe.chroma)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizers.step(done)
        steps += 1
        if steps % 500 == 0:
            print(f"  {done:4.0%}  step {steps}  loss {loss.item():.4f}", flush=True)
    return Trained(steps, time.monotonic() - started, time.process_time() - cpu_before)


@torch.no_grad()
def sample_latents(vq: VQ, images: np.ndarray, seed: int) -> Tensor:
    """Return up to KMEANS_POSITIONS unit latents (P, D) of the pictures, drawn with `seed`."""
    z_PD = torch.cat(
        [
            unit_latents(vq, x).permute(0, 2, 3, 1).reshape(-1, vq.spec.code_dim)
            for x in torch.split(to_tensor(list(images)), EVAL_BATCH)
        ]
    )
    return z_PD[torch.randperm(len(z_PD), generator=torch.Generator().manual_seed(seed))[:KMEANS_POSITIONS]]


@dataclass(frozen=True)
class Quality:
    """How well a tokenizer does: `psnr` in dB, the mean over pictures of pixels in 0..1; `used` codes chosen at least
    once."""

    psnr: float
    used: int


def measure(vq: VQ, images: np.ndarray) -> Quality:
    """Return the quality of the round trip picture -> codes -> picture."""
    psnr, used = [], set[int]()
    for x_BCHW in torch.split(to_tensor(list(images)), EVAL_BATCH):
        codes_BN = vq.encode(x_BCHW)
        used.update(codes_BN.flatten().tolist())
        mse_B = (vq.decode(codes_BN).clamp(-1, 1) - x_BCHW).div(2).square().mean((1, 2, 3))
        psnr += (-10 * mse_B.log10()).tolist()
    return Quality(float(np.mean(psnr)), len(used))


def save(vq: VQ, path: Path) -> None:
    """Write the weights as float16 safetensors, by rename; one line of metadata only, since the library writes several
    in any order."""
    from safetensors.torch import save as to_bytes

    tensors = {name: tensor.detach().to(torch.float16).contiguous() for name, tensor in vq.state_dict().items()}
    write_bytes(path, to_bytes(tensors, metadata={"model": vq.spec.name}))


def card(recipe: Recipe, pictures: Pictures, trained: Trained, path: Path) -> str:
    """Return the model card of the weights at `path`, measured on what was written."""
    loaded = load_vq("VQ-demo", str(path))
    spec, size = loaded.vq.spec, sum(parameter.numel() for parameter in loaded.vq.parameters())
    unseen, seen = measure(loaded.vq, pictures.held_out), measure(loaded.vq, pictures.train)
    widths = ", ".join(str(spec.channels * mult) for mult in spec.channel_mult)
    took = f"about {round(trained.seconds, -1):.0f} s, of them {round(trained.cpu_seconds, -1):.0f} s of CPU time"
    drawings = "CC BY-SA 4.0, as the drawings: OpenMoji, the open-source emoji and icon project (openmoji.org)"
    rows = {
        "file": f"`{path.name}`, float16, sha256 `{loaded.weights.sha256}`",
        "tensors": f"fingerprint `{loaded.fingerprint}`",
        "layout": f"LlamaGen's VQ scaled down: widths {widths}; {size:,} parameters",
        "codes": (
            f"{spec.codebook_size} of {spec.code_dim} numbers, one per {spec.downsampling} x {spec.downsampling} pixels"
        ),
        "data": f"{pictures.source}; {len(pictures.train)} to train, {len(pictures.held_out)} held out by hash",
        "picture": f"{SIZE} x {SIZE} pixels; other multiples of {spec.downsampling} work",
        "held-out PSNR": f"{unseen.psnr:.2f} dB, mean over pictures (training pictures: {seen.psnr:.2f} dB)",
        "codes used": f"{unseen.used} by the held-out pictures, {seen.used} by the training pictures",
        "recipe": ", ".join(
            f"{key} {value}" for key, value in asdict(recipe).items() if key not in ("seconds", "steps")
        ),
        "training": f"{trained.steps} steps, {took}; torch {torch.__version__}, CPU threads: {torch.get_num_threads()}",
        "again": f"`python -m pipeline.demo.train_tokenizer --steps {trained.steps} --seed {recipe.seed}`",
        "licence": drawings if pictures.source.startswith(OPENMOJI) else "that of the pictures",
    }
    lines = [f"| {key} | {value} |" for key, value in rows.items()]
    return "\n".join(["# VQ-demo", "", CARD_SAYS, "", "| | |", "|---|---|", *lines, ""])


def main(arguments: list[str] | None = None) -> None:
    """Train, then write the weights and the card beside them."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.demo.train_tokenizer", description="Train VQ-demo on OpenMoji, or on your pictures."
    )
    parser.add_argument("--seconds", type=float, default=Recipe.seconds, help="training time (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=0, help="train for so many steps instead, to repeat a run exactly")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--pictures", type=Path, help="a folder of pictures instead of OpenMoji")
    parser.add_argument(
        "--out", type=Path, default=DEMO_WEIGHTS, help="file to write, .safetensors (default: the packaged one)"
    )
    options = parser.parse_args(arguments)
    recipe = Recipe(seconds=options.seconds, steps=options.steps, seed=options.seed)
    try:
        pictures = gather(options.pictures, recipe)
    except ValueError as error:
        raise SystemExit(f"tokenizer: {error}") from error
    print(
        f"training on {len(pictures.train)} pictures ({pictures.source}), {len(pictures.held_out)} held out", flush=True
    )
    vq = prepare(recipe)
    trained = train(vq, pictures, recipe)
    save(vq.eval(), options.out)
    text = card(recipe, pictures, trained, options.out)
    write_bytes(options.out.with_name("CARD.md"), text.encode())
    print(text)


if __name__ == "__main__":
    main()
