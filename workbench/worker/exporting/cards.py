"""Model cards: front matter as the hub reads it, and a body in which everything stands that the run knows of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from workbench import __version__
from workbench.worker.exporting import report, snippets
from workbench.worker.exporting.facts import Facts

_HUB_LICENCES = ("apache-2.0", "mit", "llama3.1", "llama3.2", "llama3.3", "unknown")
"""Ids that the hub knows by the same name; the others are `other` there, with a name and a link."""


def card(facts: Facts, folder: str, found: Mapping[str, Any]) -> str:
    """README.md of one of the export's folders.

    Args:
        folder: adapter, merged, model or gguf.
        found: the report.
    """
    sections = (
        ("", _introduction(facts, folder)),
        ("Loading it", snippets.text(facts, folder)),
        ("Is it the same model as the run's?", _equivalence(found)),
        ("Scores", _score_table(facts)),
        ("Licence", _licence(facts)),
        ("Base", _base(facts)),
        ("Data", _data(facts)),
        ("Recipe", f"```yaml\n{facts.recipe()}```"),
        ("Cost", _cost(facts)),
        ("Proof", _proof(facts)),
    )
    body = "\n\n".join(f"## {heading}\n\n{text}" if heading else text for heading, text in sections)
    return f"---\n{front_matter(facts, folder)}\n---\n\n# {facts.title}\n\n{report.warning(found)}{body}\n"


def front_matter(facts: Facts, folder: str) -> str:
    """The YAML at the top of a card."""
    licence, source = facts.licences[0], facts.resolved.data.card.source
    known = licence.id in _HUB_LICENCES
    method = facts.resolved.recipe.method.name
    metadata = ModelCardData(
        base_model=facts.base_name if facts.is_hub and not facts.base_is_random else None,  # the hub looks it up
        library_name="peft" if folder == "adapter" else "transformers",
        license=licence.id if known else "other",
        license_name=None if known else licence.id,
        license_link=None if known else licence.url,
        datasets=[source.hub] if source.hub else None,
        pipeline_tag="text-generation",
        tags=["workbench", method, facts.resolved.recipe.objective.name, *(["gguf"] if folder == "gguf" else [])],
        model_name=facts.title if facts.scores else None,
        eval_results=_results(facts) or None,
    )
    return metadata.to_yaml(line_break="\n").strip()


def _results(facts: Facts) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=suite,
            dataset_name=suite,
            dataset_config=task,  # the hub's library takes results of one data set and configuration together
            metric_type=result["metric"],
            metric_name=f"{result['metric']} (95 % interval {result['low']:.4f} to {result['high']:.4f})",
            metric_value=round(result["value"], 6),
        )
        for suite, tasks in facts.scores.items()
        for task, result in tasks.items()
    ]


def _introduction(facts: Facts, folder: str) -> str:
    recipe = facts.resolved.recipe
    what = {
        "adapter": f"An adapter (method `{recipe.method.name}`) for {_base_link(facts)}",
        "merged": f"{_base_link(facts)} with an adapter (method `{recipe.method.name}`) merged into it",
        "model": f"A model of {_base_link(facts)}'s architecture, {_start(facts)}",
        "gguf": f"{_base_link(facts)}, trained by `{recipe.method.name}`, as one GGUF file",
    }[folder]
    return (
        f"{what}. Objective `{recipe.objective.name}`, rows `{facts.resolved.data.name}`, {facts.resolved.dtype}, seed "
        f"{recipe.seed}. Made by workbench {__version__} from the run `{facts.run.name}`."
    )


def _start(facts: Facts) -> str:
    return "all of it trained from random weights" if facts.base_is_random else "all of its weights trained further"


def _base_link(facts: Facts) -> str:
    return f"[{facts.base_name}](https://huggingface.co/{facts.base_name})" if facts.is_hub else f"`{facts.base_name}`"


def _equivalence(found: Mapping[str, Any]) -> str:
    reference, compared = found["reference"], found["compared"]
    return (
        f"Held against {reference['what']} on {compared['tokens']:,} tokens, {compared['source']}:\n\n"
        f"{report.table(found)}\n\nLimits, reasons and intervals: EQUIVALENCE.md and equivalence.json of the export."
    )


def _score_table(facts: Facts) -> str:
    if not facts.scores:
        return "The run was not scored."
    lines = ["| task | metric | this result | 95 % interval | its base | 95 % interval |", "|---|---|---|---|---|---|"]
    for suite, tasks in facts.scores.items():
        for task, result in tasks.items():
            base = facts.base_scores.get(suite, {}).get(task)
            better = "" if result["higher_is_better"] else " (lower is better)"
            lines.append(f"| {suite}/{task} | {result['metric']}{better} | {_scored(result)} | {_scored(base)} |")
    return "\n".join(lines) + "\n\nOf the result as the run scored it, not of other forms. Seeds: one."


def _scored(result: Mapping[str, Any] | None) -> str:
    if result is None:
        return "not scored | -"
    return f"{result['value']:.4f} | {result['low']:.4f} to {result['high']:.4f}"


def _licence(facts: Facts) -> str:
    lines = [f"The base: {', '.join(one.name for one in facts.licences)}. What follows for this model:", ""]
    lines += [f"- **{note}**" for note in facts.notes()]
    for one in facts.licences:
        lines += [f"- {text}" for text in one.restrictions]
        lines.append(f"- Text: {one.url or 'unknown'}; read on {one.as_of}.")
    lines += ["", f"The rows: {facts.resolved.data.card.licence}. Their terms may add to these. No legal advice."]
    return "\n".join(lines)


def _base(facts: Facts) -> str:
    base = facts.manifest["base"]
    if base["revision"]:
        return f"{_base_link(facts)} at revision `{base['revision']}`."
    start = " Its weights were random: only its configuration and tokenizer were used." if facts.base_is_random else ""
    named = f"A local directory, `{facts.base_name}`, known by its files.{start}"
    if facts.base_is_embedded:
        named = f"`{facts.base_name}`, the small base that comes with workbench itself.{start}"
    return f"{named}\n\n{_hashes(base['files'])}"


def _hashes(listed: Mapping[str, str]) -> str:
    lines = ["| file | sha256 |", "|---|---|", *(f"| `{name}` | `{digest}` |" for name, digest in listed.items())]
    return "\n".join(lines)


def _data(facts: Facts) -> str:
    data, account, card_ = facts.manifest["data"], facts.account, facts.resolved.data.card
    origin = card_.source.hub or card_.origin or "files beside its card"
    dropped = sum(account["rows_dropped"].values())
    return (
        f"Card `{data['card']}`, split `{data['split']}`, from {origin}, revision `{data['revision'] or 'none'}`, "
        f"licence {data['licence']}. {account['rows_in']:,} rows in = {account['rows_trained']:,} trained + "
        f"{dropped:,} left out.\n\n{_hashes(data['files'])}"
    )


def _cost(facts: Facts) -> str:
    cost = facts.cost
    energy = f"{cost['joules']:,.0f} J" if cost["joules"] is not None else "not known"
    money = f"{cost['usd']:.4f} USD" if cost["usd"] is not None else "not known"
    return "\n".join(
        (
            f"- compute: {cost['training_flops']:.4g} FLOPs over {cost['tokens']:,} tokens in {cost['steps']:,} steps",
            f"- time: {cost['device_seconds']:,.1f} device seconds on {cost['devices']} x {facts.resolved.target.name}",
            f"- energy: {energy} ({cost.get('energy_note') or cost['energy_source']})",
            f"- money: {money} (source: {cost['price_source'] or 'none'})",
            f"- peak memory: {cost['peak_memory_bytes'] / 2**30:.2f} GiB",
        )
    )


def _proof(facts: Facts) -> str:
    proved = facts.proof
    error = proved["saved_against_memory"]
    close = "exactly the trained model's logits"
    if error:
        close = f"logits within {error:.2g} of their spread of the trained model's (tolerance {proved['tolerance']:g})"
    line = (
        f"{proved['moved']} of {proved['places']} trained places moved, {proved['trained_parameters']:,} parameters. "
        f"The saved files, loaded afresh, gave {close}"
    )
    moved = proved.get("saved_against_base")
    return f"{line}, and {moved:.3g} away from the base's." if moved is not None else f"{line}."
