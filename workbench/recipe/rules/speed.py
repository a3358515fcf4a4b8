"""Rules on how a step is cut and computed: layouts, attention, compilation, micro-batches."""

from __future__ import annotations

from workbench.recipe.resolved import Resolved
from workbench.recipe.rules import facts
from workbench.recipe.rules.rule import Rule

_LONG_FOR_EAGER = 4096
_EIGHT_BIT_FROM = 4096
"""Entries below which bitsandbytes keeps a tensor's state in 32 bits."""


def _flattened(resolved: Resolved) -> bool:
    return resolved.trains and resolved.recipe.target.layout == "flattened"


def _recurrent(resolved: Resolved) -> bool:
    known = facts.row(resolved)
    return known is not None and known.shape.linear_attention is not None


def _eager_on_long_rows(resolved: Resolved) -> bool:
    length = facts.row_tokens(resolved) or 0
    has_another = facts.architecture(resolved) != "GptOssForCausalLM"
    return facts.attention(resolved) == "eager" and has_another and length > _LONG_FOR_EAGER


def _longest_tokens(resolved: Resolved) -> int:
    """Tokens of the longest row that the recipe allows; a pair of dpo is two."""
    rows = 2 if resolved.recipe.objective.name == "dpo" else 1
    return rows * (resolved.recipe.data.max_length or 0)


def _largest_trained(resolved: Resolved) -> int | None:
    """Entries of the adapter's largest trained tensor; None where that is not known."""
    known, method = facts.row(resolved), resolved.recipe.method
    if known is None or method.name in ("full", "none", "oft"):
        return None
    shape = known.shape
    widest = max(shape.hidden_size, shape.intermediate_size or 0, shape.heads * (shape.head_dim or 0))
    adapter = facts.low_rank(resolved)
    return widest * (adapter.rank if adapter else 1)


def _nothing_in_eight_bits(resolved: Resolved) -> bool:
    largest = _largest_trained(resolved)
    small = largest is not None and largest < _EIGHT_BIT_FROM
    return small and resolved.recipe.training.optimizer in facts.EIGHT_BIT_OPTIMIZERS


RULES: tuple[Rule, ...] = (
    Rule(
        "dpo-flattened",
        ("target", "layout"),
        "illegal",
        lambda r: r.recipe.objective.name == "dpo" and r.recipe.target.layout == "flattened",
        "dpo compares whole rows, which the flattened layout joins",
        "use layout padded",
        "trl 1.16 dpo_trainer.py:734: padding_free is disabled",
        cure={"target.layout": "padded"},
    ),
    Rule(
        "flattened-recurrent",
        ("target", "layout"),
        "illegal",
        lambda r: _flattened(r) and _recurrent(r),
        "linear attention carries its state from one row into the next: position ids do not reset it",
        "use layout padded",
        "transformers documentation, padding_free (linear attention); modelscope/ms-swift issue 9618; "
        "seen on a small Qwen3-Next",
        cure={"target.layout": "padded"},
    ),
    Rule(
        "flattened-attention",
        ("target", "layout"),
        "illegal",
        lambda r: _flattened(r) and facts.architecture(r) == "GptOssForCausalLM",
        "this architecture makes its attention masks without position ids, so rows see the rows before them",
        "use layout padded",
        "transformers 5.23 gpt_oss/modeling_gpt_oss.py:460; seen on a small one (logits differ by 0.3)",
        cure={"target.layout": "padded"},
    ),
    Rule(
        "flattened-dense-attention",
        ("target", "layout"),
        "unwise",
        lambda r: _flattened(r) and facts.attention(r) != "flash_attention_2",
        "without variable-length attention it computes every row against the whole micro-batch (737 s for 319 s)",
        "use layout padded, or flash_attention_2 where the target has it",
        "transformers documentation, padding_free; seen on a CPU with trl 1.16",
        cure={"target.layout": "padded"},
    ),
    Rule(
        "eager-long-rows",
        ("target", "attention"),
        "unwise",
        _eager_on_long_rows,
        "eager attention keeps a score for every pair of tokens: memory grows with the square of the row",
        "use sdpa",
        "transformers 5.23 documentation, attention_interface; torch 2.13 scaled_dot_product_attention",
        cure={"target.attention": "sdpa"},
    ),
    Rule(
        "micro-batch-below-row",
        ("target", "micro_batch_tokens"),
        "unwise",
        lambda r: r.trains and _longest_tokens(r) > r.recipe.target.micro_batch_tokens,
        "the longest row (two of them for a pair) is longer, and will stand alone above that limit",
        "raise it to the longest row, or lower data.max_length",
        "workbench/plan/cutting.py (cut_by_tokens)",
        cure=lambda r: {"target.micro_batch_tokens": _longest_tokens(r)},
    ),
    Rule(
        "compile-four-bit",
        ("target", "compile"),
        "unwise",
        lambda r: r.recipe.target.compile and facts.four_bit(r),
        "transformers does not support fine-tuning a compiled quantised base",
        "set target.compile to false",
        "transformers 5.23 trainer_utils.py:102 (validate_quantization_for_training)",
        cure={"target.compile": False},
    ),
    Rule(
        "compile-checkpointed-dropout",
        ("target", "compile"),
        "unwise",
        lambda r: r.recipe.target.compile and r.recipe.target.gradient_checkpointing and facts.dropout(r) > 0,
        "an adapter's dropout under gradient checkpointing was seen to break the compiler",
        "set method.dropout to 0, or target.compile to false",
        "peft issue 3020",
        cure={"target.compile": False},
    ),
    Rule(
        "eight-bit-small",
        ("training", "optimizer"),
        "unwise",
        _nothing_in_eight_bits,
        f"every trained tensor has under {_EIGHT_BIT_FROM} entries, and their state stays in 32 bits: nothing is saved",
        "use adamw",
        "bitsandbytes 0.50.2 optim/optimizer.py:502 (min_8bit_size); seen: the same losses as adamw",
        cure={"training.optimizer": "adamw"},
    ),
)
