"""Rules on several devices: who holds what, and whether there is anything to spread."""

from __future__ import annotations

from workbench.recipe.resolved import Resolved
from workbench.recipe.rules import facts
from workbench.recipe.rules.rule import Rule
from workbench.recipe.schema import Qlora
from workbench.recipe.settings import Settings


def _other_type(resolved: Resolved) -> bool:
    method = resolved.recipe.method
    typed = isinstance(method, Qlora) and method.storage in ("fp32", "bf16") and method.storage != resolved.dtype
    return typed and facts.sharded(resolved)


def _fewer_devices(resolved: Resolved) -> Settings:
    """As many processes as there are examples in a step."""
    devices = min(resolved.recipe.target.devices, resolved.recipe.training.batch_size)
    return {"target.nodes": 1, "target.devices": devices, "target.sharding": "auto"}


def _sharding_of(resolved: Resolved) -> str:
    return resolved.recipe.target.sharding


RULES: tuple[Rule, ...] = (
    Rule(
        "several-unshared",
        ("target", "sharding"),
        "illegal",
        lambda r: _sharding_of(r) == "none" and facts.processes(r) > 1,
        "several devices are asked for, and none of the ways to share the work",
        "use ddp (whole copies) or fsdp (spread weights)",
        "trl 1.16 sft_trainer.py:1119: several devices in one process are refused",
        cure={"target.sharding": "ddp"},
    ),
    Rule(
        "sharded-alone",
        ("target", "sharding"),
        "illegal",
        lambda r: _sharding_of(r) in ("ddp", "fsdp") and facts.processes(r) == 1,
        "there is one device only, so nothing would be shared and the field would be ignored",
        "raise target.devices, or set target.sharding to none",
        "accelerate 1.15 state.py:1010: only a distributed run becomes FSDP",
        cure={"target.sharding": "none"},
    ),
    Rule(
        "sharding-device",
        ("target", "devices"),
        "illegal",
        lambda r: facts.processes(r) > 1 and r.target.capabilities().ddp == "no",
        "torch has no collective operations between devices of this kind",
        "use one device",
        "accelerate 1.15 state.py (no backend for mps); torch 2.13 documentation, distributed: backends",
        cure={"target.nodes": 1, "target.devices": 1, "target.sharding": "none"},
    ),
    Rule(
        "batch-below-devices",
        ("target", "devices"),
        "illegal",
        lambda r: r.trains and r.recipe.training.batch_size < facts.processes(r),
        "a step has fewer examples than there are devices, so some would never get a row",
        "use as many devices as a step has examples, or a larger training.batch_size (another run)",
        "torch 2.13 documentation, DistributedDataParallel: every process takes part in every step",
        cure=_fewer_devices,
    ),
    Rule(
        "fsdp-eight-bit-optimizer",
        ("training", "optimizer"),
        "illegal",
        lambda r: facts.sharded(r) and r.recipe.training.optimizer in facts.EIGHT_BIT_OPTIMIZERS,
        "bitsandbytes' optimizers do not know sharded tensors (an illegal memory access)",
        "use adamw: its state is spread as well",
        "bitsandbytes issues 1633 and 89 (open); 0.50.2 optim/optimizer.py (zeros_like of a DTensor)",
        cure={"training.optimizer": "adamw"},
    ),
    Rule(
        "fsdp-storage-type",
        ("method", "storage"),
        "illegal",
        _other_type,
        "sharded weights are cast to the arithmetic's type when they are gathered, which breaks 4-bit weights packed "
        "in another one",
        "leave it at auto: the type of the arithmetic",
        "bitsandbytes documentation, fsdp_qlora: quant_storage must match the model's type",
        cure={"method.storage": "auto"},
    ),
    Rule(
        "fsdp-storage-bytes",
        ("method", "storage"),
        "unwise",
        lambda r: facts.sharded(r) and getattr(r.recipe.method, "storage", None) == "uint8",
        "bytes are left out of the sharding: every device holds the whole 4-bit base",
        "leave it at auto: the type of the arithmetic",
        "accelerate 1.15 utils/fsdp_utils.py:799",
        cure={"method.storage": "auto"},
    ),
    Rule(
        "fsdp-pissa",
        ("method", "variant"),
        "illegal",
        lambda r: facts.sharded(r) and getattr(r.recipe.method, "variant", None) == "pissa",
        "a sharded pissa adapter cannot be converted to an ordinary one",
        "use variant plain, or sharding ddp",
        "peft 0.21.2 save_pretrained (the conversion subtracts whole matrices from sharded ones)",
        cure={"method.variant": "plain"},
    ),
    Rule(
        "fsdp-dpo",
        ("target", "sharding"),
        "illegal",
        lambda r: facts.sharded(r) and r.recipe.objective.name == "dpo" and r.target.device != "cpu",
        "the reference of dpo is asked before the weights are sharded, by one device that would have to hold them all",
        "use sharding ddp (with method qlora, where the base is too large)",
        "the workbench's own order of stages (workbench/worker/training.py)",
        cure={"target.sharding": "ddp"},
    ),
    Rule(
        "fsdp-across-nodes",
        ("target", "sharding"),
        "unwise",
        lambda r: facts.sharded(r) and r.recipe.target.nodes > 1,
        "every layer's weights cross the network in every forward and backward pass",
        "use ddp where one device holds the base, or fewer nodes with more devices",
        "torch 2.13 distributed/fsdp/api.py: HYBRID_SHARD keeps all-gathers within a node",
    ),
    Rule(
        "fsdp-on-ascend",
        ("target", "sharding"),
        "unwise",
        lambda r: facts.sharded(r) and r.target.device == "npu" and r.dtype != "fp32",
        "others could not shard 16-bit weights there and turn the base into fp32 first, which takes twice the bytes",
        "use ddp where one device holds the base",
        "ms-swift 4.6 (casts to fp32 before FSDP2 on an NPU); nothing was run there by us",
        cure={"target.sharding": "ddp"},
    ),
)
