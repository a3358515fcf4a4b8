"""The report of an export: plain values, and the page that is read from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.runs import exports
from workbench.worker.exporting.comparing import Compared, Comparison
from workbench.worker.exporting.facts import Facts

_METHOD = """\
## How it was measured

Every form was loaded afresh from the exported files and read the same tokens as the reference, the result as it was
scored, each text with the tokens before it given. *Tokens agree*: the share of positions where both hold the same
token for the likeliest next one. *KL*: how far the form's distribution of the next token is from the reference's, in
nats a token. Score differences are paired by item. A form passes where no score is different and its KL is within its
limit: in fp32 that of the order of sums; in half precision four times what the same adapter gives in fp32 arithmetic;
a form of fewer bits may lose a hundredth of what training changed, or every score must be proved equivalent (the 90 %
interval inside the margin). GGUF files are read by transformers, which dequantises their weights: that tests the
file, not llama.cpp's arithmetic."""


def words(facts: Facts, comparison: Comparison, done: Sequence[Compared], proved: float) -> dict[str, Any]:
    """The report as plain values.

    Args:
        proved: largest difference of the result's logits from those of the trained model, relative to their spread.
    """
    resolved, reference = facts.resolved, comparison.reference
    held = getattr(resolved.recipe.method, "quantization", "none")
    base = f"its base in {resolved.dtype}" if held == "none" else f"its base in {held}, arithmetic in {resolved.dtype}"
    failed = [one.form.name for one in done if one.form.folder is not None and not one.judged.passed]
    return {
        "format": exports.FORMAT,
        "run": facts.run.name,
        "title": facts.title,
        "verdict": "fail" if failed else "pass",
        "failed": failed,
        "reference": {
            "what": f"the adapter on {base}" if reference.effect else f"the model in {resolved.dtype}",
            "saved_against_memory": proved,
            "effect": reference.effect.as_words() if reference.effect else None,
            "floor": reference.floor.as_words() if reference.floor else None,
        },
        "compared": {
            "source": comparison.passages.source,
            "tokens": comparison.passages.tokens,
            "suite": resolved.suite.name if resolved.suite else None,
        },
        "forms": [one.as_words() for one in done],
        "notes": facts.notes(),
    }


def table(found: Mapping[str, Any]) -> str:
    """The forms as a table in Markdown; a sentence where there is none."""
    if not found["forms"]:
        return "The adapter is the only form that was exported."
    lines = [
        "| form | tokens agree | mean KL | largest KL | score differences | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for one in found["forms"]:
        numbers = (
            f"{one['agreement']:.2%} | {one['mean_kl']:.2g} | {one['largest_kl']:.2g}"
            if "tokens" in one
            else "- | - | -"
        )
        scores = ", ".join(f"{task['task']} {task['difference']:+z.4f}" for task in one["differences"]) or "-"
        verdict = one["verdict"].upper() if one["shipped"] else f"{one['verdict']} (not shipped)"
        lines.append(f"| {one['form']} | {numbers} | {scores} | {verdict} |")
    return "\n".join(lines)


def warning(found: Mapping[str, Any]) -> str:
    """What stands at the top where a shipped form fails; else nothing."""
    if not found["failed"]:
        return ""
    return f"> **FAIL: {', '.join(found['failed'])} is not shown to be the same model as the run's result.**\n\n"


def page(found: Mapping[str, Any]) -> str:
    """EQUIVALENCE.md."""
    reference, compared = found["reference"], found["compared"]
    error = reference["saved_against_memory"]
    away = f"its logits are {error:.2g} of their spread away from the trained model's" if error else (
        "its logits are exactly the trained model's"
    )  # fmt: skip
    facts = [
        f"Reference: {reference['what']}, as the run `{found['run']}` was scored; loaded from files, {away}.",
        f"Compared on {compared['tokens']:,} tokens: {compared['source']}.",
    ]
    if reference["effect"]:
        effect = reference["effect"]
        facts.append(
            f"What training changed: the base without the adapter is {effect['mean_kl']:.3g} nats a token away, "
            f"{effect['agreement']:.2%} of the likeliest tokens agree."
        )
    if reference["floor"]:
        floor = reference["floor"]
        facts.append(
            f"What precision moves: the same adapter in fp32 arithmetic is {floor['mean_kl']:.3g} nats a token away, "
            f"{floor['agreement']:.2%} of the likeliest tokens agree."
        )
    reasons = [f"### {one['form']}: {one['verdict']}\n\n" + _listed(_details(one)) for one in found["forms"]]
    title = f"# Are the forms of {found['title']} the same model? {found['verdict'].upper()}"
    if not found["forms"]:
        return f"# {found['title']}: the adapter alone\n\n{table(found)}\n\n{_listed(facts)}\n"
    parts = [title, warning(found).strip(), _listed(facts), table(found), *reasons, _METHOD]
    return "\n\n".join(part for part in parts if part) + "\n"


def _details(one: Mapping[str, Any]) -> list[str]:
    found = list(one["reasons"])
    if not one["shipped"] and one["verdict"] == "fail":
        found.append("looked at only, not shipped: do not make this of the merged model")
    if one.get("largest_lead"):
        found.append(
            f"where the likeliest tokens differ, the reference put its own before the other by at most "
            f"{one['largest_lead']:.2g} nats"
        )
    return found


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
