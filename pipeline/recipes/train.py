"""Say what the trainer can be told: the recipe's [train] table, read without importing torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.gpt_spec import SIZES, ConditionKind, RopeCondition

Schedule = Literal["constant", "wsd", "linear", "cosine"]


class Blended(BaseModel):
    """One of the sets of codes that training blends: another tier or run beside train.tier."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str | None = Field(None, description="run folder or its URL; none: this run")
    tier: str | None = Field(None, description="tier of that run; none: train.tier")
    weight: float | None = Field(None, gt=0, description="share of the samples that are read, over the sum of all")
    epochs: float | None = Field(None, gt=0, description="passes over this set in one epoch of the blend")


def check_weights(weights: dict[str, float]) -> None:
    """Raise ValueError for weights of caption sources by which nothing can be drawn."""
    if not all(0 <= weight < float("inf") for weight in weights.values()) or not sum(weights.values()) > 0:
        raise ValueError("weights must not be negative, and one must be above 0")


class TrainConfig(BaseModel):
    """[train]: the defaults are LlamaGen's text-to-image training, stage 1, unless a line says otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # what to train
    model: str = Field("GPT-XL", description=f"one of {', '.join(SIZES)}")
    tier: str = Field("pretrain", description="tier whose codes are read: RUN/codes/TIER/")
    condition: ConditionKind = Field(
        "text", description="'class': codes with labels, such as ImageNet's imported from LlamaGen's folders"
    )
    classes: int = Field(
        1000, ge=1, description="with condition = 'class': labels are below it; one more embedding stands for none"
    )
    rope_cond: RopeCondition = Field(
        "identity", description="'zero': LlamaGen's, text is attended uniformly; 'identity': by content"
    )
    cond_len: int = Field(120, ge=1, description="text tokens at most")
    cond_dim: int = Field(2048, ge=1, description="width of a text feature; flan-t5-xl's is 2048")
    token_dropout: float = Field(0.1, ge=0, le=1, description="dropout on text and code embeddings")
    resid_dropout: float = Field(0.1, ge=0, le=1, description="dropout after attention")
    ffn_dropout: float = Field(0.1, ge=0, le=1, description="dropout after the feed-forward layer")
    cond_dropout: float = Field(
        0.1, ge=0, le=1, description="share of samples trained without text or class, for classifier-free guidance"
    )
    init_from: str | None = Field(
        None,
        description=(
            "start from these weights alone: train/TIER/checkpoints of another tier, one in it, .safetensors,"
            " LlamaGen's .pt"
        ),
    )
    init_ema: bool = Field(False, description="start from the running average that init_from holds, not its weights")

    # text
    text: Literal["t5", "hashed_words"] = Field(
        "t5", description="text features; 'hashed_words' (demo) needs no model: one fixed vector per word"
    )
    text_weights: str = Field(
        "google/flan-t5-xl", description="T5 encoder: a local folder, or a name in the local cache"
    )
    captions: dict[str, float] | None = Field(
        None,
        min_length=1,
        description="caption source = weight; drawn per picture and epoch; none: those of the tier, else alt alone",
    )

    # optimisation
    batch: int = Field(256, ge=1, description="pictures per step, over all processes")
    micro_batch: int | None = Field(
        None, ge=1, description="pictures per forward pass and process; none: all of a process's share at once"
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="'muon' (demo): Muon on the layers' matrices, AdamW on the rest"
    )
    lr: float = Field(1e-4, gt=0, description="AdamW's learning rate")
    muon_lr: float = Field(0.03, gt=0, description="Muon's learning rate")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's betas")
    weight_decay: float = Field(0.05, ge=0, description="on parameters of two dimensions and more")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    schedule: Schedule | None = Field(
        None,
        description="learning rate after warm-up: 'wsd' stays, then falls in the cooldown; none: wsd if there is one",
    )
    warmup: int = Field(0, ge=0, description="first steps, in which the rate rises linearly from 0")
    cooldown: float = Field(
        0.0,
        ge=0,
        le=1,
        description="last share of `steps` in which the rate falls linearly; 0: none, LlamaGen's rate is constant",
    )
    lr_end: float = Field(0.0, ge=0, le=1, description="where a falling rate ends, as a share of the highest")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the running average of the weights, which samples are drawn from; 0: none",
    )
    spike: float = Field(
        10.0,
        ge=0,
        description="a step whose gradient norm is above this many running medians is skipped; 0: none is for that",
    )
    max_skipped: int = Field(20, ge=1, description="skipped steps in a row that end the run")
    corruption: Literal["none", "uniform"] = Field(
        "none",
        description=(
            "(demo) 'uniform': at a rate drawn from U(0, 1) per picture, codes that are read are another picture's at"
            " that place"
        ),
    )

    # how long
    steps: int | None = Field(None, ge=1, description="stop after this many steps")
    epochs: int = Field(300, ge=1, description="stop after this many passes over the codes")
    seconds: float | None = Field(
        None, gt=0, description="stop each invocation after this long; such a run cannot be repeated exactly"
    )
    seed: int = Field(0, description="seed of weights, dropout, order and drawn captions")

    # data
    max_pictures: int | None = Field(
        None, ge=1, description="(demo) only this many pictures, chosen by hash(uid, seed)"
    )
    blend: list[Blended] = Field(
        [], description="sets of codes that are blended, all by weight or all by epochs; none: train.tier alone"
    )
    where: str | None = Field(
        None, description='only samples whose row of the ledger fulfils this, as SQL over its columns: "aesthetic > 5"'
    )
    join: list[str] = Field(
        [], description="tables with a column uid, whose captions or text features stand beside the samples' own"
    )
    window: int = Field(8, ge=1, description="shards whose samples are mixed with one another")
    prefetch: int = Field(8, ge=0, description="steps that are read ahead; 0: none")
    validation: float = Field(
        0.0, ge=0, lt=1, description="share of the pictures that is not trained on but measured, chosen by hash(uid)"
    )
    validate_every: int = Field(1000, ge=1, description="steps between measurements of the validation loss")
    validation_pictures: int = Field(2048, ge=1, description="pictures that are measured at most")
    memory_bytes: int = Field(
        1 << 30, ge=0, description="shards of a store up to this size in all stay in memory once they were fetched"
    )
    verify: Literal["sha256", "size"] = Field(
        "size",
        description="how shards are held against their index before training; each sample's CRC-32 is as it is read",
    )
    on_change: Literal["refuse", "restart", "continue"] = Field(
        "refuse",
        description=(
            "when checkpoints come from other codes or another recipe: stop, set them aside and start anew, or go on"
            " from them"
        ),
    )

    # machine
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="arithmetic of the layers; auto: bf16 on a GPU, fp32 on a CPU"
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads; none: torch's choice. A fixed number gives the same bytes on any number of cores",
    )
    compile: bool = Field(False, description="torch.compile")
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="'fsdp': weights, gradients and optimizer are spread over the processes (FSDP2)"
    )
    activation_checkpointing: bool = Field(
        False, description="keep each layer's input alone and compute the rest again on the way back"
    )

    # what it leaves
    tensorboard: bool = Field(True, description="write event files for TensorBoard into train/TIER/tensorboard")
    wandb: str | None = Field(None, description="project of Weights & Biases that the figures are sent to; none: none")
    log_every: int = Field(100, ge=1, description="steps between progress lines")
    checkpoint_every: int = Field(5000, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(3, ge=1, description="how many of the newest checkpoints stay")
    sample_every: int = Field(5000, ge=0, description="steps between sample pictures; 0: none")
    sample_prompts: list[str] = Field(
        [], description="what to draw, captions or class numbers; none: those of the first pictures"
    )
    sample_cfg_scale: float = Field(7.5, ge=0, description="classifier-free guidance of sample pictures")
    sample_top_k: int = Field(1000, ge=0, description="codes that sample pictures draw from; 0: all")
    sample_temperature: float = Field(1.0, ge=0, description="temperature of sample pictures")
    sample_top_p: float = Field(1.0, gt=0, le=1, description="nucleus of sample pictures")
    recall_pictures: int = Field(
        0,
        ge=0,
        description=(
            "(demo) after training draw this many training captions and count whose picture comes back; 0: none"
        ),
    )

    @field_validator("model")
    @classmethod
    def _known_model(cls, name: str) -> str:
        if name not in SIZES:
            raise ValueError(f"unknown model; choices: {', '.join(SIZES)}")
        return name

    @field_validator("captions")
    @classmethod
    def _positive_weights(cls, weights: dict[str, float] | None) -> dict[str, float] | None:
        if weights is not None:
            check_weights(weights)
        return weights

    @model_validator(mode="after")
    def _classes_have_no_captions(self) -> "TrainConfig":
        if self.condition == "class" and self.recall_pictures:
            raise ValueError("recall_pictures draws captions; with condition = 'class' it must be 0")
        wrong = [
            prompt
            for prompt in self.sample_prompts
            if not (prompt.isdecimal() and prompt.isascii() and int(prompt) < self.classes)
        ]
        if self.condition == "class" and wrong:
            raise ValueError(
                f"sample_prompts: {wrong[0]!r} is no class; with condition = 'class' wanted numbers from 0 to"
                f" {self.classes - 1}"
            )
        return self

    @model_validator(mode="after")
    def _schedule_is_whole(self) -> "TrainConfig":
        if self.cooldown and (self.steps is None or self.seconds is not None):
            raise ValueError("cooldown needs `steps`, and no `seconds`: its end must be known")
        if self.falls and (self.steps is None or self.seconds is not None):
            raise ValueError(f"schedule = {self.schedule!r} needs `steps`, and no `seconds`: its end must be known")
        if self.steps is not None and self.warmup >= self.steps:
            raise ValueError(f"warmup is {self.warmup} of {self.steps} steps: the rate would never reach its highest")
        if self.schedule == "wsd" and not self.cooldown:
            raise ValueError("schedule = 'wsd' needs a cooldown above 0: the share of `steps` in which the rate falls")
        if self.cooldown and self.schedule not in (None, "wsd"):
            raise ValueError(f"schedule = {self.schedule!r} has no cooldown; wanted cooldown = 0, or schedule = 'wsd'")
        return self

    @model_validator(mode="after")
    def _muon_needs_whole_matrices(self) -> "TrainConfig":
        if self.parallel == "fsdp" and self.optimizer == "muon":
            raise ValueError(
                "optimizer = 'muon' turns whole matrices, and parallel = 'fsdp' cuts them; wanted parallel = 'ddp', or"
                " optimizer = 'adamw'"
            )
        return self

    @property
    def falls(self) -> bool:
        """Tell whether the rate depends on how many steps there are."""
        return self.schedule in ("wsd", "linear", "cosine") or self.cooldown > 0

    @field_validator("blend")
    @classmethod
    def _one_measure(cls, blend: list[Blended]) -> list[Blended]:
        kinds = {(one.weight is None, one.epochs is None) for one in blend}
        if blend and (len(kinds) > 1 or kinds & {(True, True), (False, False)}):
            raise ValueError("each set needs a weight, or each needs epochs; not both, not some of each")
        return blend
