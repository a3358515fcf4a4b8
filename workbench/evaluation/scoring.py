"""Our own tasks: items -> one row an item. Nothing here knows runs or files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench import collective
from workbench.catalog.suites import Choice, Generate, Heldout
from workbench.data.formats import Message
from workbench.data.rendering import Renderer
from workbench.errors import EvaluationError, Problem
from workbench.evaluation.items import Item
from workbench.evaluation.likelihood import Pair, continuation_logprobs, windows
from workbench.progress import Progress

Row = dict[str, Any]
"""id, cluster, value, weight, state, tokens (of the longest sequence asked for it; with options, the right one's), and
what the task adds. The metric is sum(value * weight) / sum(weight)."""

_BITS = math.log(2.0)


@dataclass(frozen=True)
class Scorer:
    """A model with what it takes to ask it."""

    model: Any
    renderer: Renderer
    max_length: int
    """Context of the base in tokens."""
    pad_id: int
    batch_size: int
    progress: Progress


def heldout(task: Heldout, items: Sequence[Item], scorer: Scorer) -> list[Row]:
    """Bits per byte: every token of a text scored once, in disjoint windows after the start token.

    Raises:
        EvaluationError: the tokenizer does not give a text back, or reads a part of it as a control token, so its bits
            would be those of another text.
    """
    start, _ = scorer.renderer.document_marks()
    pairs: list[Pair] = []
    owners: list[int] = []
    for at, item in enumerate(items):
        ids = scorer.renderer.text_ids(item.text)
        refuse_lossy(scorer.renderer, ids, item, task)
        for pair in windows(start, ids, scorer.max_length):
            pairs.append(pair)
            owners.append(at)
    bits, longest = [0.0] * len(items), [0] * len(items)
    for at, pair, score in zip(owners, pairs, _logprobs(scorer, pairs, task.id), strict=True):
        bits[at] -= score / _BITS
        longest[at] = max(longest[at], sum(map(len, pair)))
    rows = []
    for item, total, tokens in zip(items, bits, longest, strict=True):
        size = len(item.text.encode())
        rows.append(_row(item, total / size, "ok", tokens, weight=float(size), bits=total, text=item.text))
    return rows


def refuse_lossy(renderer: Renderer, ids: list[int], item: Item, task: Heldout) -> None:
    """Raise unless the tokens stand for the item's very text, as `heldout` needs it."""
    control = renderer.special_ids.intersection(ids) - {renderer.tokenizer.unk_token_id}
    if control:
        raise EvaluationError(
            Problem(
                f"task {task.id} item {item.id}",
                f"holds the control token {renderer.tokenizer.decode([min(control)])!r} as text",
                "take it out of the text (a card's `separator` cuts documents at it)",
            )
        )
    back = renderer.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if back != item.text and back.lstrip(" ") != item.text.lstrip(" "):
        raise EvaluationError(
            Problem(
                f"task {task.id} item {item.id}",
                "the tokenizer does not give this text back unchanged, so its "
                "bits per byte would be those of another text",
                "take a byte-level tokenizer, or leave such texts out",
            )
        )


def choice(task: Choice, items: Sequence[Item], scorer: Scorer) -> list[Row]:
    """The likeliest of the given options, after the prompt."""
    pairs: list[Pair] = []
    lengths = []
    for item in items:
        messages = scorer.renderer.with_shots(item.shots, item.messages)
        prompt = scorer.renderer.prompt(messages)
        pairs += [(prompt, option_ids(task, item, scorer, messages, option, prompt)) for option in item.options]
        lengths.append(sum(map(len, pairs[item.options.index(item.expected) - len(item.options)])))
    scores = iter(_logprobs(scorer, pairs, task.id))
    rows = []
    for item, tokens in zip(items, lengths, strict=True):
        found = [next(scores) for _ in item.options]
        sizes = [max(len(option.encode()), 1) for option in item.options]
        right = item.options.index(item.expected)
        best = max(range(len(found)), key=lambda at: found[at])
        best_per_byte = max(range(len(found)), key=lambda at: found[at] / sizes[at])
        metrics = {
            "accuracy": float(best == right),
            "accuracy_per_byte": float(best_per_byte == right),
            "answer_bits_per_byte": -found[right] / sizes[right] / _BITS,
        }
        rows.append(
            _row(
                item,
                metrics[task.primary],
                "ok",
                tokens,
                question=item.question,
                expected=item.expected,
                answer=item.options[best],
                margin=found[right] - max([v for a, v in enumerate(found) if a != right], default=found[right]),
                **metrics,
            )
        )
    return rows


def option_ids(
    task: Choice, item: Item, scorer: Scorer, messages: Sequence[Message], option: str, prompt: list[int]
) -> list[int]:
    """The ids of an option after its prompt.

    Raises:
        EvaluationError: together they are longer than the base takes.
    """
    ids = scorer.renderer.answer_ids(messages, option, prompt)
    if len(prompt) + len(ids) > scorer.max_length:
        raise EvaluationError(
            Problem(
                f"task {task.id} item {item.id}",
                f"is {len(prompt) + len(ids)} tokens long, the base takes {scorer.max_length}",
                "choose shorter items, or a base with a longer context",
            )
        )
    return ids


def generate(task: Generate, items: Sequence[Item], scorer: Scorer) -> list[Row]:
    """Greedy answers, extracted and compared exactly."""
    renderer = scorer.renderer
    prompts = [renderer.prompt(renderer.with_shots(item.shots, item.messages)) for item in items]
    room = scorer.max_length - task.max_new_tokens
    fits = [at for at, prompt in enumerate(prompts) if len(prompt) <= room]
    order = sorted(fits, key=lambda at: (-len(prompts[at]), at))
    batches = [order[start : start + scorer.batch_size] for start in range(0, len(order), scorer.batch_size)]
    mine = collective.share(batches)
    found: dict[int, tuple[str, bool]] = {}
    bar = scorer.progress.bar(task.id, sum(map(len, mine)))
    for chosen in mine:
        made = greedy(scorer, [prompts[at] for at in chosen], task.max_new_tokens, task.stop)
        found |= dict(zip(chosen, made, strict=True))
        bar.advance(by=len(chosen))
    bar.close()
    answers = {at: answer for part in collective.gather(found) for at, answer in part.items()}
    return [_generated(task, item, len(prompts[at]), answers.get(at)) for at, item in enumerate(items)]


def expected_answer(task: Generate, item: Item) -> str:
    """What an answer is compared with.

    Raises:
        EvaluationError: the extraction finds nothing in it.
    """
    expected = extract(task.extract, item.expected)
    if expected is None:
        raise EvaluationError(
            Problem(
                f"task {task.id} item {item.id}",
                f"extract finds nothing in the expected answer {item.expected!r}",
                "mend the regex: it is applied to the expected answer as well",
            )
        )
    return expected


def _generated(task: Generate, item: Item, tokens: int, made: tuple[str, bool] | None) -> Row:
    expected = expected_answer(task, item)
    if made is None:
        return _generated_row(item, tokens, 0.0, "error", expected, None, "") | {"reason": "the prompt is too long"}
    output, ended = made
    answer = extract(task.extract, output)
    if task.refusal is not None and re.search(task.refusal, output):
        state = "refused"
    elif not ended:
        state = "truncated"
    else:
        state = "ok" if answer is not None else "unparseable"
    right = float(answer is not None and answer == expected)
    return _generated_row(item, tokens, right, state, expected, answer, output)


def _generated_row(
    item: Item, tokens: int, value: float, state: str, expected: str, answer: str | None, output: str
) -> Row:
    return _row(item, value, state, tokens, question=item.question, expected=expected, answer=answer, output=output)


def extract(rule: str | None, text: str) -> str | None:
    """The answer in a text: the last match's first group, a JSON key, or the whole text; None where it is not there."""
    if rule is None:
        return text.strip()
    if rule.startswith("json:"):
        try:
            value = json.loads(text[text.index("{") : text.rindex("}") + 1])[rule.removeprefix("json:")]
        except (ValueError, KeyError, TypeError):
            return None
        return str(value).strip()
    matches = list(re.finditer(rule, text))
    if not matches:
        return None
    last = matches[-1]
    answer = last.group(1) if last.re.groups else last.group()
    return None if answer is None else answer.strip()


@torch.no_grad()
def greedy(
    scorer: Scorer, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: Sequence[str] = ()
) -> list[tuple[str, bool]]:
    """Greedy continuations as text, and whether each ended by itself. Rows are padded on the left."""
    model, tokenizer = scorer.model, scorer.renderer.tokenizer
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), scorer.pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for at, prompt in enumerate(prompts):
        ids[at, width - len(prompt) :] = torch.tensor(list(prompt))
        mask[at, width - len(prompt) :] = 1
    ends = sorted(scorer.renderer.end_ids)
    more = {"stop_strings": list(stop), "tokenizer": tokenizer} if stop else {}
    model.eval()
    made = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        repetition_penalty=1.0,
        eos_token_id=ends or None,
        pad_token_id=scorer.pad_id,
        use_cache=True,
        **more,
    )[:, width:].tolist()
    return [_text(tokenizer, row, frozenset(ends), stop, max_new_tokens) for row in made]


def _text(
    tokenizer: Any, row: list[int], ends: frozenset[int], stop: Sequence[str], max_new_tokens: int
) -> tuple[str, bool]:
    ended = next((at for at, token in enumerate(row) if token in ends), None)
    text: str = tokenizer.decode(row[:ended], skip_special_tokens=True)
    cuts = [text.index(word) for word in stop if word in text]
    if cuts:
        return text[: min(cuts)], True
    return text, ended is not None or len(row) < max_new_tokens


def _logprobs(scorer: Scorer, pairs: list[Pair], what: str) -> list[float]:
    """Log-likelihoods in nats.

    Raises:
        EvaluationError: one is not finite: whatever stood in its place would be a made-up score.
    """
    found = continuation_logprobs(scorer.model, pairs, scorer.batch_size, scorer.pad_id, scorer.progress, what)
    broken = sum(not math.isfinite(score.total) for score in found)
    if broken:
        raise EvaluationError(
            Problem(
                f"task {what}",
                f"{broken} of {len(found)} log-likelihoods are not finite",
                "the weights are damaged, or overflow in this precision: see the losses in metrics.jsonl",
            )
        )
    return [score.total for score in found]


def _row(item: Item, value: float, state: str, tokens: int, weight: float = 1.0, **more: Any) -> Row:
    place = {"id": item.id, "cluster": item.cluster}
    return {**place, "value": value, "weight": weight, "state": state, "tokens": tokens, **more}
