"""The output head: asked for what the loss needs, and only where a token is counted."""

from __future__ import annotations

from typing import Any

import torch
from trl.trainer.utils import add_fused_lm_head

from workbench.data.rendering import IGNORED


class CountedHead:
    """TRL's fused head without the entropy and the accuracy that nobody here reads, over the counted positions alone.

    TRL scores every position wherever there is no Triton, prompts and padding too. So what its head gets is narrowed: a
    hook takes the counted positions out of the backbone's last hidden states, and their labels are given to the head as
    already shifted ones (`shift_labels`), which it takes as they are.
    """

    def __init__(self, model: Any) -> None:
        """`model`: the causal language model under whatever wraps it."""
        add_fused_lm_head(model, outputs=("log_probs",))
        self._wanted: torch.Tensor | None = None
        model.base_model.register_forward_hook(self._narrow)

    def __call__(self, model: Any, inputs: dict[str, Any], count: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Negative log-likelihood of the counted tokens over `count`, and the routers' balance loss where the base is
        told to give it.

        Args:
            model: the model as the trainer has wrapped it.
            inputs: what it takes, with `labels` [rows, tokens].
        """
        labels = inputs.pop("labels")
        wanted = torch.nn.functional.pad(labels[:, 1:] != IGNORED, (0, 1))  # a position predicts the token after it
        self._wanted = wanted
        try:
            outputs = model(
                **inputs, use_cache=False, fused_lm_head=True, shift_labels=labels[:, 1:][wanted[:, :-1]][None]
            )
        finally:
            self._wanted = None
        return -outputs.log_probs.sum() / count, outputs.aux_loss

    def _narrow(self, backbone: Any, arguments: Any, output: Any) -> None:
        """[rows, tokens, width] -> [1, counted, width], while a loss is being computed."""
        if self._wanted is not None:
            output.last_hidden_state = output.last_hidden_state[self._wanted][None]
