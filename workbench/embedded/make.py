"""The embedded base's blank form: its tokenizer and configuration, made from the world's text.

`scripts/make-embedded-base` runs this, then trains the recipe `embedded-pretrain` and keeps the result.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config

_VOCABULARY = 1_024
_END = "<|endoftext|>"
_TOKENIZER_DOCUMENTS = 3_000


def main() -> None:
    """`python -m workbench.embedded.make TEXT.jsonl DIRECTORY`: write tokenizer and config.json of the blank base."""
    parser = argparse.ArgumentParser(prog="workbench.embedded.make")
    parser.add_argument("text", type=Path, help="pretraining documents, one JSON object with `text` a line")
    parser.add_argument("directory", type=Path)
    chosen = parser.parse_args()
    tokenizer = _tokenizer(chosen.text)
    tokenizer.save_pretrained(str(chosen.directory))
    end = tokenizer.convert_tokens_to_ids(_END)
    config = Qwen3Config(
        vocab_size=_VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        architectures=["Qwen3ForCausalLM"],
    )
    config.save_pretrained(str(chosen.directory))


def _tokenizer(text: Path) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 1,024 tokens; one special token begins and ends a text."""
    with text.open(encoding="utf-8") as stream:
        documents = [json.loads(line)["text"] for line, _ in zip(stream, range(_TOKENIZER_DOCUMENTS), strict=False)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=_END, eos_token=_END, pad_token=_END)


if __name__ == "__main__":
    main()
