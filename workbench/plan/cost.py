"""Floating-point operations in closed form.

Forward: 2 operations a weight and token in every matrix product, plus 2 * width * S^2 a layer and sequence for the two
attention products (S tokens, width = heads * (query-key width + value width), no causal discount). Backward: the same
again for the gradient of the inputs through every weight, the same once more for the gradient of each trained weight,
and twice the forward for attention. (Kaplan et al. 2020, arXiv 2001.08361, section 2.1; PaLM, arXiv 2204.02311,
appendix B; for adapters the frozen weights need no weight gradient.) Recomputation under gradient checkpointing is not
counted: these are the model's operations, not the hardware's.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """What one token passes through."""

    frozen_parameters: float
    """Weights in matrix products that are not trained, the output head included, unused experts left out."""
    trained_parameters: float
    """Those that are trained."""
    attention_width: int
    """Heads times (query-key width + value width) of one layer."""
    layers: int


def forward_flops(work: Work, tokens: float, squared_lengths: float) -> float:
    """Operations of one forward pass.

    Args:
        tokens: tokens, padding left out.
        squared_lengths: sum over sequences of the squared length.
    """
    weights = work.frozen_parameters + work.trained_parameters
    return 2.0 * weights * tokens + 2.0 * work.layers * work.attention_width * squared_lengths


def training_flops(work: Work, tokens: float, squared_lengths: float) -> float:
    """Operations of forward and backward; arguments as in `forward_flops`."""
    attention = 2.0 * work.layers * work.attention_width * squared_lengths
    return (4.0 * work.frozen_parameters + 6.0 * work.trained_parameters) * tokens + 3.0 * attention
