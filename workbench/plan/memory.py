"""Memory of one device in closed form: parts that stay, and stages that come and go. Bytes throughout.

The stages of a run reach their peaks one after the other, so a run needs what stays and the largest stage. What a part
is made of is said where it is computed; the whole is checked against traced steps and against measured peaks
(tests/test_memory.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from workbench.plan import activations
from workbench.plan.activations import BYTES, Adapted, Arithmetic, Batch
from workbench.plan.architecture import Architecture

_HEAD_TILE_TOKENS = 4096
_HEAD_TILE_WORDS = 32768
"""TRL 1.16's fused head computes logits in tiles of so many tokens by so many words of the vocabulary."""
_COPIES_FORWARD, _COPIES_BACKWARD = 3.3, 7.3
"""fp32 copies of a tile that torch's operations make where there is no Triton (traced)."""
_BITS_4 = {True: 4.0 + 8.0 / 64 + 32.0 / (64 * 256), False: 4.0 + 32.0 / 64}
"""Bits a weight of bitsandbytes' 4-bit types in blocks of 64, with quantised scales or not (measured: 4.129, 4.5)."""
_ADAM_BYTES = {"adamw": 8.0, "adamw_8bit": 2.0, "paged_adamw_8bit": 0.0}
"""Optimizer state a trained entry that lies on the device (paged state is brought in page by page)."""


@dataclass(frozen=True)
class Setting:
    """Everything that memory depends on."""

    model: Architecture
    adapted: Adapted
    trained_parameters: int
    arithmetic: Arithmetic
    batch: Batch
    quantised: bool = False
    double_quantisation: bool = True
    checkpointing: bool = False
    optimizer: str = "adamw"
    head: Literal["fused", "logits"] = "fused"
    keeps_outputs: bool = False
    """Whether the logits of the last step are still held during this one (a plain loop that names its outputs)."""
    autocast: bool = True
    """Whether the forward runs under autocast (ours does wherever arithmetic is not fp32)."""
    fused_optimizer: bool = True
    tiles_in_place: bool = True
    """Whether the fused head's kernels work inside their tile (Triton); else torch's operations make copies of it."""
    shards: int = 1
    """Devices over which weights, gradients and optimizer are spread; 1: none."""
    copies: int = 1
    """Devices that hold a whole copy (ddp keeps buckets of gradients beside them)."""
    evaluation_tokens: int = 0
    """Tokens of the largest batch that is scored; 0: none."""
    evaluation_row: int = 0
    """Tokens of the longest row that is scored."""
    cache_tokens: int = 0
    """Prompt and answer tokens of all sequences that are generated at once."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device, by part."""

    stays: Mapping[str, float]
    """Weights, adapter, gradients, optimizer."""
    stages: Mapping[str, float]
    """What each stage of a run adds at its peak."""
    details: Mapping[str, float] = field(default_factory=dict)
    """Parts of the stages that a person asks for: activations, logits."""

    @property
    def largest_stage(self) -> str:
        """The stage that decides."""
        return max(self.stages, key=lambda name: self.stages[name])

    @property
    def bytes(self) -> float:
        """The peak of all stages, without what the framework itself takes."""
        return sum(self.stays.values()) + max(self.stages.values())

    @property
    def training_bytes(self) -> float:
        """The peak of the training stages."""
        return sum(self.stays.values()) + max(self.stages[name] for name in TRAINING_STAGES)


TRAINING_STAGES = ("forward", "backward", "optimizer step")


def memory(setting: Setting) -> Memory:
    """The parts and stages of a run on one device."""
    full = setting.adapted.kind == "full"
    trains = setting.adapted.kind != "none"
    trained = setting.trained_parameters / setting.shards
    weights = weight_bytes(setting) / setting.shards
    optimizer = _ADAM_BYTES[setting.optimizer] * trained * (BYTES[setting.arithmetic.weights] / 4 if full else 1.0)
    gradient = (BYTES[setting.arithmetic.weights] if full else 4.0) * trained
    layer, head = _layer_saved(setting), _head(setting)
    saved = layer.kept + _around(setting)
    casts = _cast_weights(setting)
    held = head.held
    gathered = _gathered(setting)
    buckets = gradient if setting.copies > 1 else 0.0
    forward = saved + max(head.forward, layer.working) + casts + held + gathered
    still_cast = 0.0 if setting.checkpointing else casts
    backward_start = saved + max(head.backward, layer.working + layer.again) + still_cast + held
    # a tied embedding's gradient is made whole and added to the head's, into a third tensor
    tied = 2.0 * setting.model.vocabulary * setting.model.hidden * 4.0 if full and setting.model.tied else 0.0
    backward_end = gradient + max(layer.again + layer.working, tied) + held
    stays = {
        "weights": weights,
        "adapter": 0.0 if full else 4.0 * trained,
        "optimizer": optimizer if trains else 0.0,
    }
    stages = {
        "forward": forward if trains else 0.0,
        "backward": max(backward_start, backward_end) + buckets + gathered if trains else 0.0,
        "optimizer step": gradient + buckets + _optimizer_temporaries(setting, trained) + held if trains else 0.0,
        "evaluation": max(0.0, _evaluation(setting) + _loaded(setting) - sum(stays.values())),
        "save": _merge(setting) if trains and not full else 0.0,
    }
    logits = max(head.forward, head.backward)
    return Memory(stays, stages, {"activations": saved, "logits": logits, "gradients": gradient})


def weight_bytes(setting: Setting) -> float:
    """The base's weights as they lie on the device; 4 bits for linear layers of a quantised one, and their type for
    embeddings, head, norms and fused experts, which bitsandbytes leaves alone."""
    model, size = setting.model, BYTES[setting.arithmetic.weights]
    if not setting.quantised:
        return float(model.parameters * size)
    packed = sum(linear.copies * linear.weights for linear in model.linears)
    bits = _BITS_4[setting.double_quantisation]
    return packed * bits / 8 + (model.parameters - packed) * size


@dataclass(frozen=True)
class _Layers:
    kept: float
    """What the forward keeps of all layers."""
    again: float
    """What the backward computes again of one layer."""
    working: float
    """Gradients and temporaries while one layer is walked back."""


def _layer_saved(setting: Setting) -> _Layers:
    model, batch = setting.model, setting.batch
    everything = activations.saved_bytes(model, setting.adapted, setting.arithmetic, batch, setting.autocast)
    everything += _weight_copies(setting)
    one = everything / model.layers
    working = activations.working_bytes(model, setting.adapted, setting.arithmetic, batch)
    if setting.quantised:  # the largest layer, dequantised
        working += max(linear.weights for linear in model.linears) * setting.arithmetic.product_bytes
    if not setting.checkpointing:
        return _Layers(everything, 0.0, working)
    kept = float(model.layers * batch.tokens * model.hidden * setting.arithmetic.residual_bytes)
    return _Layers(kept, one, working)


def _weight_copies(setting: Setting) -> float:
    """Adapters that change a weight rather than an activation (PEFT's target parameters) keep the changed weight of
    every layer for the backward."""
    size = setting.arithmetic.product_bytes if setting.autocast else 4
    copied = sum(linear.copies * linear.weights for linear in setting.adapted.linears if linear.as_parameter)
    return float(copied * size)


def _around(setting: Setting) -> float:
    """What lies around the layers: the embedding's output, the last hidden states and their copy without the last
    token."""
    batch, model = setting.batch, setting.model
    entry = setting.arithmetic.residual_bytes + 2 * setting.arithmetic.product_bytes
    return float(batch.tokens * model.hidden * entry)


@dataclass(frozen=True)
class _Head:
    forward: float
    backward: float
    held: float


def _head(setting: Setting) -> _Head:
    """The loss: tiles of the fused head, or whole logits with their fp32 copy, log-softmax and gradient."""
    tokens, model, size = setting.batch.tokens, setting.model, setting.arithmetic.product_bytes
    trained_head = 4.0 * model.vocabulary * model.hidden if setting.adapted.kind == "full" else 0.0
    if setting.head == "fused":
        rows, words = min(tokens, _HEAD_TILE_TOKENS), min(_HEAD_TILE_WORDS, model.vocabulary)
        tile = float(rows * _HEAD_TILE_WORDS * size)
        tile += words * model.hidden * size if BYTES[setting.arithmetic.weights] != size else 0.0  # the head's cast
        copy = 0.0 if setting.tiles_in_place else 4.0 * rows * words
        backward = tile + _COPIES_BACKWARD * copy + tokens * model.hidden * (4.0 + size) + trained_head
        return _Head(tile + _COPIES_FORWARD * copy, backward, 0.0)
    logits = float(tokens * model.vocabulary)
    copy = 4.0 if size < 4 else 0.0
    held = (logits + tokens * _cache_width(model)) * size if setting.keeps_outputs else 0.0
    # the forward ends with the log-softmax kept; the backward adds its gradient and that of the logits
    own = 0.0 if setting.keeps_outputs else logits * size
    return _Head(own + logits * (copy + 4.0), logits * 12.0 + trained_head, held)


def _cache_width(model: Architecture) -> int:
    """Entries of keys and values that a forward with a cache hands out of one token, all layers together."""
    return sum(kind.layers * kind.kv_heads * (kind.key_dim + kind.value_dim) for kind in model.attentions)


def _cast_weights(setting: Setting) -> float:
    """Autocast keeps a cast copy of every trained weight until the forward is over, and the backward needs it."""
    if not setting.autocast or setting.arithmetic.products == "fp32":
        return 0.0
    if setting.adapted.kind != "full":
        return float(setting.trained_parameters * setting.arithmetic.product_bytes)
    model = setting.model
    return float((model.linear_parameters + model.expert_parameters) * setting.arithmetic.product_bytes)


def _gathered(setting: Setting) -> float:
    """Sharded weights are gathered layer by layer: two layers at a time (one computes, the next is fetched), and the
    embedding or the head as a whole."""
    if setting.shards == 1:
        return 0.0
    model = setting.model
    embedding = model.vocabulary * model.hidden * BYTES[setting.arithmetic.weights]
    layers = (weight_bytes(setting) - embedding * (1 if model.tied else 2)) / model.layers
    return max(2.0 * layers, layers + embedding)


def _optimizer_temporaries(setting: Setting, trained: float) -> float:
    """AdamW in one kernel needs none; else the update of the largest weight (fp32)."""
    if setting.fused_optimizer or setting.optimizer != "adamw":
        return 0.0
    largest = max(linear.weights for linear in setting.model.linears)
    return 8.0 * min(trained, largest)


def _evaluation(setting: Setting) -> float:
    """Scoring: whole logits of a batch, the fp32 log-softmax of its longest row, one layer's working memory; or the
    cache of what is generated."""
    model, size = setting.model, setting.arithmetic.product_bytes
    scored = setting.evaluation_tokens * model.vocabulary * size + setting.evaluation_row * model.vocabulary * 8.0
    widest = max(linear.outputs for linear in model.linears)
    layer = setting.evaluation_tokens * (3.0 * widest + 4.0 * model.hidden) * size
    generated = setting.cache_tokens * (_cache_width(model) + 3.0 * widest) * size
    return max(scored + layer, generated)


def _loaded(setting: Setting) -> float:
    """A result is scored and proved as it is loaded afresh: whole, in the run's own type, without an optimizer."""
    size = setting.arithmetic.product_bytes
    if setting.adapted.kind == "full":
        return float(setting.model.parameters * size)
    return weight_bytes(setting) + 4.0 * setting.trained_parameters


def _merge(setting: Setting) -> float:
    """Proving and merging look at one layer at a time: the largest update in fp32 beside its weight."""
    linears = setting.adapted.linears or setting.model.linears
    return 8.0 * max(linear.weights for linear in linears)
