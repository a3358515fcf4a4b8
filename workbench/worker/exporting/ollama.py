"""A Modelfile for Ollama: only what is known of the result, no translated chat template."""

from __future__ import annotations

import json
from pathlib import Path

from workbench.worker.exporting.facts import Facts
from workbench.worker.setup import Bench

_NO_TEMPLATE = """\
# No TEMPLATE: Ollama writes them in a language of its own, and a translation of this model's Jinja template would be a
# guess. From a GGUF file Ollama takes the template that is stored in it, where it knows that one; otherwise write
# TEMPLATE yourself and hold a rendered prompt against tokenizer.apply_chat_template."""


def modelfile(facts: Facts, bench: Bench, start: str, folder: Path) -> str:
    """The text of a Modelfile.

    Args:
        start: what it is made from, relative to itself.
        folder: where it will lie; a licence file there is quoted.
    """
    renderer = bench.renderer(bench.template)
    stops = sorted(bench.tokenizer.convert_ids_to_tokens(token) for token in renderer.end_ids)
    system = facts.resolved.recipe.data.system
    lines = [f"FROM {start}"]
    if bench.template is None:
        lines.append("# Trained on the texts as they stand.")
        lines.append(f'TEMPLATE """{"{{ .System }}" if system else ""}{{{{ .Prompt }}}}"""')
    else:
        lines.append(_NO_TEMPLATE)
    if system:
        lines.append(f'SYSTEM """{_quoted(facts.opening_text or system)}"""')
    lines.append(f"PARAMETER num_ctx {facts.context}")
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    lines.append(f'LICENSE """{_licence(facts, folder)}"""')
    return "\n".join(lines) + "\n"


def _licence(facts: Facts, folder: Path) -> str:
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("LICENSE*"))]
    named = [f"{one.name} {one.url or ''}".strip() for one in facts.licences]
    return _quoted("\n".join([*named, *facts.notes(), *texts]))


def _quoted(text: str) -> str:
    """A text between three quotes, which it must not end."""
    return text.replace('"""', "'''")
