"""Which of a tokenizer's tokens are no text: those that begin one, end a turn, or steer the model otherwise."""

from __future__ import annotations

from typing import Any


def start_ids(tokenizer: Any) -> list[int]:
    """The special tokens that the tokenizer itself puts before a text."""
    with_special = list(tokenizer("a")["input_ids"])
    without = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    for at in range(len(with_special) - len(without) + 1):
        if with_special[at : at + len(without)] == without:
            return with_special[:at]
    return []


def texts(tokenizer: Any) -> dict[str, int]:
    """Text -> id of every token that is no text: what the tokenizer names (eos, ...), and what its file marks as
    special (a chat template's tokens often stand there only)."""
    named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    marked = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {token: number for token, number in (named | marked).items() if token}


def end_ids(tokenizer: Any) -> frozenset[int]:
    """Tokens that end a turn: EOS, and what chat formats use in its place."""
    names = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<|return|>", "<|eom_id|>", "<end_of_turn>")
    vocabulary = tokenizer.get_vocab()
    found = {vocabulary[name] for name in names if name in vocabulary}
    if tokenizer.eos_token_id is not None:
        found.add(tokenizer.eos_token_id)
    return frozenset(found)
