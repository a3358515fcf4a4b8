"""The sections of a recipe. No logic: only fields, their limits and what they mean.

The text under a field is its documentation everywhere: `workbench explain`, the JSON schema, the reference page.
A section that is written as one word is short for `{name: word}`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from workbench.recipe.section import Flag, Section
from workbench.recipe.tracking import Tracking


class Base(Section):
    """The open-weight model that is started from."""

    name: str
    """A name of `workbench bases`, a hub repository (`owner/name`) or a directory (with a `/`, from the recipe)."""
    revision: str | None = None
    """Commit, tag or branch of the hub repository; resolved to a commit and recorded. None: the catalog's or main."""
    init: Literal["pretrained", "random"] = "pretrained"
    """`random` builds the same architecture fresh from the seed: training from scratch."""
    trust_remote_code: Flag = False
    """Run Python code from the repository. Needs a `revision` that is a commit."""


Targets = Literal["all-linear"] | Annotated[list[str], Field(min_length=1)]
"""Every linear layer but the output head, or names."""


class _Lora(Section):
    rank: Annotated[int, Field(ge=1, le=4096)] = 16
    """Rank r of the update B A."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """The update is scaled by alpha / rank (rslora: alpha / sqrt(rank)). None: twice the rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability on the adapter's input."""
    targets: Targets = "all-linear"
    """Which linear layers are adapted: all but the output head, or names (last part, or a glob over whole names)."""
    experts: Literal["none", "all"] = "none"
    """Whether the fused experts of a mixture-of-experts base are adapted too. Takes neither dropout nor dora/pissa."""


class Lora(_Lora):
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685)."""

    name: Literal["lora"] = "lora"
    variant: Literal["plain", "rslora", "dora", "pissa"] = "plain"
    """rslora: scale by sqrt(rank); dora: magnitude and direction apart; pissa: from the principal components on."""
    init_from: str | None = None
    """A finished run whose adapter is trained on (for example sft, then dpo): its name or directory."""


class Qlora(_Lora):
    """LoRA over a base held in 4 bits (Dettmers et al. 2023, arXiv 2305.14314), through bitsandbytes."""

    name: Literal["qlora"] = "qlora"
    variant: Literal["plain", "rslora", "dora"] = "plain"
    """As in lora."""
    quantization: Literal["nf4", "fp4"] = "nf4"
    """The 4-bit type of the frozen weights."""
    double_quantization: Flag = True
    """Quantise the scales as well: 4.13 instead of 4.5 bits a weight."""
    storage: Literal["auto", "uint8", "fp32", "bf16"] = "auto"
    """Type that packed weights lie in. auto: the arithmetic's under fsdp, which spreads no uint8; else uint8."""
    init_from: str | None = None
    """As in lora."""


class Ia3(Section):
    """Learned rescaling of activations (Liu et al. 2022, arXiv 2205.05638)."""

    name: Literal["ia3"] = "ia3"
    targets: Targets = Field(default_factory=lambda: ["k_proj", "v_proj", "down_proj"])
    """Which linear layers are rescaled."""
    feedforward_targets: list[str] = Field(default_factory=lambda: ["down_proj"])
    """Those of them whose input is rescaled instead of their output."""


class Vera(Section):
    """Shared frozen random projections with trained vectors (Kopiczko et al. 2023, arXiv 2310.11454)."""

    name: Literal["vera"] = "vera"
    rank: Annotated[int, Field(ge=1)] = 256
    """Rank of the shared random projections."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability on the adapter's input."""
    targets: Targets = "all-linear"
    """As in lora."""


class Oft(Section):
    """Orthogonal fine-tuning in blocks (Qiu et al. 2023, arXiv 2306.07280)."""

    name: Literal["oft"] = "oft"
    block_size: Annotated[int, Field(ge=2)] = 32
    """Size of the orthogonal blocks; it must divide the input width of every target."""
    targets: Targets = "all-linear"
    """As in lora."""


class Full(Section):
    """Every weight is trained; the result is a plain model, not an adapter."""

    name: Literal["full"] = "full"


class NoMethod(Section):
    """Nothing is trained: the base as it is, scored like any other run."""

    name: Literal["none"] = "none"
    quantization: Literal["none", "nf4", "fp4"] = "none"
    """Score the base in full precision, or as qlora holds it."""
    double_quantization: Flag = True
    """As in qlora; says nothing in full precision."""


Method = Annotated[Lora | Qlora | Ia3 | Vera | Oft | Full | NoMethod, Field(discriminator="name")]


class Sft(Section):
    """Supervised fine-tuning: next-token loss on the answers."""

    name: Literal["sft"] = "sft"
    turns: Literal["all", "last"] = "all"
    """Which assistant turns of a conversation are counted in the loss."""


class Pretrain(Section):
    """Next-token loss on raw text, every token counted."""

    name: Literal["pretrain"] = "pretrain"


class Dpo(Section):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290) over chosen/rejected pairs."""

    name: Literal["dpo"] = "dpo"
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the pull towards the reference."""
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """sigmoid: the paper's; ipo: Azar et al. 2023."""


Objective = Annotated[Sft | Pretrain | Dpo, Field(discriminator="name")]


class Data(Section):
    """The rows that are trained on."""

    name: str
    """A dataset card (`datasets/NAME.yaml`), or a path to a card."""
    split: str = "train"
    """Which split of the card is trained on."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the rows that is used; chosen by content, so a smaller share lies inside a larger one."""
    template: str = "base"
    """`base`: the base's own chat template; `plain`: the texts as they stand; else a path to a Jinja template."""
    system: str | None = None
    """A system message put before every conversation that has none."""
    max_length: Annotated[int, Field(ge=8)] | None = None
    """Longest row in tokens. None: the base's context."""
    too_long: Literal["refuse", "drop", "cut"] = "refuse"
    """What happens to a longer row. (Raw text is cut into windows and never too long.)"""
    max_dropped: Annotated[int, Field(ge=0)] = 0
    """How many rows may be left out as unusable before the run is refused."""
    contamination: Literal["refuse", "drop", "allow"] = "refuse"
    """What happens when a suite's item also stands in the training rows: refuse, drop the row, or only report it."""
    shuffle_labels: Flag = False
    """A control: deal the (last) answers out anew among the rows, by content; what is learnt cannot be the task."""


class Training(Section):
    """How the optimizer walks."""

    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the rows. Give this or `steps`; neither means 1."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Examples (pairs for dpo) of one optimizer step, over all devices. How a step is cut is the target's business."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """Peak learning rate. Full fine-tuning usually wants about a tenth of LoRA's."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after the warm-up; cosine and linear end at zero."""
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps over which the learning rate rises from zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay of AdamW."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """The 8-bit ones come from bitsandbytes."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Arithmetic, and storage of frozen weights. auto: bf16 where the target has it, else fp32. fp16: loss scaled."""
    router_loss: Annotated[float, Field(ge=0)] = 0.0
    """Weight of a mixture-of-experts base's load-balancing loss. Non-zero makes the result depend on micro-batches."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    """Optimizer steps between checkpoints; a killed run loses at most this many."""
    preflight: Flag = True
    """Take the largest batch through every stage of a step before the first real one. Changes no result."""


class Evaluation(Section):
    """How the result is scored."""

    suite: str | None = None
    """A suite (`recipes/suites/NAME.yaml`), or a path to one. None: the run is not scored."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Sequences scored or generated at once."""
    fewshot: Annotated[int, Field(ge=0)] | None = None
    """Solved examples before each prompted item. None: as many as the suite's tasks say."""
    base: Flag = True
    """Score the untouched base on the same suite too (once; it is remembered)."""


class Target(Section):
    """The hardware the run is made for, and how a step is cut for it. No field changes a result beyond float noise."""

    name: str = "auto"
    """A name of `workbench targets` or of a `targets.yaml` beside the recipe, or `auto`: what this machine has."""
    cluster: str | None = None
    """A cluster's profile (`slurm/NAME.yaml`), for `workbench submit`. None: the one whose target this is."""
    devices: Annotated[int, Field(ge=1)] = 1
    """Devices (processes) of one node."""
    nodes: Annotated[int, Field(ge=1)] = 1
    """Machines, each with so many devices."""
    sharding: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    """none: one device; ddp: a copy on each; fsdp: weights and optimizer spread over all. auto: ddp for several."""
    micro_batch_tokens: Annotated[int, Field(ge=1)] = 8192
    """Most tokens (padding included) of one forward pass in training."""
    layout: Literal["auto", "padded", "flattened"] = "auto"
    """padded: rows of like length side by side; flattened: end to end in one. auto: by what the attention can do."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """Which attention of the transformers library is used."""
    gradient_checkpointing: Flag = False
    """Recompute activations in the backward pass: less memory, about a third more compute."""
    kernels: Literal["auto", "torch", "liger"] = "auto"
    """liger: fused Triton kernels (`liger-kernel`). auto: liger where it can run; torch: the library's own."""
    compile: Flag = False
    """torch.compile of the model: minutes at the start, faster steps after."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads of the arithmetic. None: the cores idle when the run starts; recorded, kept when it continues."""
    usd_per_hour: Annotated[float, Field(ge=0)] | None = None
    """What an hour of one device costs, US dollars. None: the catalog's, where it has one."""
    power_watts: Annotated[float, Field(gt=0)] | None = None
    """Power of one device under load, to estimate energy where no counter measures it. None: the catalog's."""


class Recipe(Section):
    """One run, declared: what to start from, what to train on it, on which rows, and how to score it."""

    name: Annotated[str, Field(pattern=r"^[^\s./\\*?\[\]][^\n\t/\\*?\[\]]*$")] | None = None
    """What the run is called, also as a folder: without / \\ * ? [ ]. None: the file's name."""
    base: Base
    """The open-weight model that is started from."""
    method: Method = Field(default_factory=Lora)
    """What is trained on it: lora, qlora, ia3, vera, oft, full or none."""
    objective: Objective = Field(default_factory=Sft)
    """What the loss is: sft, pretrain or dpo."""
    data: Data
    """The rows that are trained on."""
    training: Training = Field(default_factory=Training)
    """How the optimizer walks."""
    evaluation: Evaluation = Field(default_factory=Evaluation)
    """How the result is scored."""
    target: Target = Field(default_factory=Target)
    """The hardware, and how a step is cut for it."""
    tracking: Tracking = Field(default_factory=Tracking)
    """Where the run is shown."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Drives initialisation, data order and dropout."""
    repeat: Annotated[int, Field(ge=0)] = 0
    """Runs the same recipe and seed once more (an A/A arm): the noise floor."""


METHODS: tuple[type[Section], ...] = (Lora, Qlora, Ia3, Vera, Oft, Full, NoMethod)
OBJECTIVES: tuple[type[Section], ...] = (Sft, Pretrain, Dpo)
