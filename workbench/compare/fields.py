"""What may differ between two runs that are compared, field by field. A field that no rule names may not differ.

A difference is *declared* where the study varies the field or one that it follows from, *harmless* where a rule says
why (a test shows each), and else a *confound*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workbench.compare.facts import OPEN_SECTIONS, TRAINED_ONLY, Facts, is_under
from workbench.recipe.fields import field_names

SEED = "seed"
_BASE = ("base.name", "base.revision")
_OF_TRAINING = ("trained", "method", *TRAINED_ONLY)
_WALK = ("data", "training.epochs", "training.steps", "training.batch_size", "objective")

KNOWN = (*field_names(), "base.files", "base.tokenizer", "dtype", "device", "git_commit", *OPEN_SECTIONS)
"""What a study may name in `vary`: the recipe's fields, and what runs record beside them."""
NEVER_VARIED = ("scoring.fingerprint", "scoring.questions_fingerprint", "scoring.metric_version")
"""Other items, or another metric, cannot be paired whatever a study says."""


@dataclass(frozen=True)
class Limit:
    """Under which circumstances a difference is harmless."""

    holds: Callable[[Facts, Facts], bool]
    otherwise: str
    """What is said where it does not hold."""


def _always(_field: str, _one: Facts, _other: Facts) -> bool:
    return True


def _in_one_only(field: str, one: Facts, other: Facts) -> bool:
    """Another method brings fields of its own; those that both have are chosen."""
    return field not in one or field not in other


def _same_scale(field: str, one: Facts, other: Facts) -> bool:
    """An adapter's alpha follows its rank (or another method) as long as alpha / rank stays."""
    scales = {facts[field] / facts["method.rank"] for facts in (one, other) if facts.get(field) is not None}
    return len(scales) < 2


@dataclass(frozen=True)
class FieldRule:
    """What a difference in one field (or in all under it) means."""

    field: str
    follows: tuple[str, ...] = ()
    """Fields that such a difference follows from."""
    given: Callable[[str, Facts, Facts], bool] = _always
    """What must be so for that: takes the field and both runs."""
    harmless: str = ""
    """Why it changes nothing that is compared."""
    limit: Limit | None = None
    """Where it is harmless, if not everywhere."""


def _is_exact(facts: Facts) -> bool:
    return bool(facts["device"] == "cpu" and facts["dtype"] == "fp32")


def _is_exact_however_cut(facts: Facts) -> bool:
    """Dropout draws other masks, and the router's loss is another one, where a step is cut otherwise."""
    return _is_exact(facts) and not facts.get("method.dropout") and not facts.get("training.router_loss")


def _same_rows(one: Facts, other: Facts) -> bool:
    return all(one.section(field) == other.section(field) for field in ("rows.files", "rows.share", "rows.card"))


_EXACT = Limit(lambda one, other: _is_exact(one) and _is_exact(other), "not on a CPU in fp32")
"""Where it was shown to stay within float noise."""
_HOWEVER_CUT = Limit(
    lambda one, other: _is_exact_however_cut(one) and _is_exact_however_cut(other),
    "not on a CPU in fp32, without dropout and router loss",
)
_NOT_IN_BF16_ON_A_CPU = Limit(
    lambda one, other: all(facts["device"] != "cpu" or _is_exact(facts) for facts in (one, other)),
    "in bf16 on a CPU the order of sums is more than float noise",
)
_THE_START = Limit(
    lambda one, other: one.get("init_from") == other.get("init_from"),
    "it is another adapter, and is not among what the study varies",
)
_THE_ROWS = Limit(_same_rows, "it stands for other rows, and is not among what the study varies")


RULES: tuple[FieldRule, ...] = (
    FieldRule("name", harmless="what a run is called"),
    FieldRule("tracking", harmless="where a run is shown"),
    FieldRule("repeat", harmless="the same recipe and seed once more: an A/A arm"),
    FieldRule("git_commit", harmless="the code that trains and scores is compared by content"),
    FieldRule("base.name", harmless="the base's files are compared by content"),
    FieldRule("base.revision", harmless="the base's files are compared by content"),
    FieldRule("data.name", harmless="the rows and their card are compared by content", limit=_THE_ROWS),
    FieldRule("data.max_dropped", harmless="only a limit; the rows that are trained on are compared"),
    FieldRule("data.template", harmless="templates are compared by content"),
    FieldRule("method.init_from", harmless="the adapter is compared by content", limit=_THE_START),
    FieldRule("training.precision", harmless="what it became (dtype) is compared"),
    FieldRule("training.checkpoint_every", harmless="how often state is saved; a continued run equals an unbroken one"),
    FieldRule("training.preflight", harmless="a step on trial, undone before the first real one"),
    FieldRule("method.storage", harmless="the same bits of 4-bit weights in another type"),
    FieldRule("evaluation.suite", harmless="the exact items are compared by fingerprint"),
    FieldRule("evaluation.base", harmless="whether the base is scored as well"),
    FieldRule("evaluation.batch_size", harmless="padding is masked out", limit=_EXACT),
    FieldRule("target.name", harmless="the device kind and the device itself are compared"),
    FieldRule("target.cluster", harmless="where it ran; the device itself is compared"),
    FieldRule("target.usd_per_hour", harmless="a price; each run's money is counted at its own"),
    FieldRule("target.power_watts", harmless="for an estimate of energy only"),
    FieldRule("target.micro_batch_tokens", harmless="how a step is cut; losses are summed", limit=_HOWEVER_CUT),
    FieldRule("target.devices", harmless="how many share a step; its rows stay, losses are summed", limit=_HOWEVER_CUT),
    FieldRule("target.nodes", harmless="how many share a step; its rows stay, losses are summed", limit=_HOWEVER_CUT),
    FieldRule("target.sharding", harmless="where weights lie; their sums are the same", limit=_HOWEVER_CUT),
    FieldRule("target.kernels", harmless="the same operations in other kernels", limit=_EXACT),
    FieldRule("target.compile", harmless="the same operations, compiled", limit=_EXACT),
    FieldRule("target.layout", harmless="how rows lie side by side; they are kept apart", limit=_HOWEVER_CUT),
    FieldRule("target.attention", harmless="the same attention in other kernels", limit=_EXACT),
    FieldRule("target.gradient_checkpointing", harmless="the same activations computed again", limit=_EXACT),
    # how many cores are idle when a run starts is chance: on a GPU, which does the sums, it may not refuse a study
    FieldRule("target.threads", harmless="the order of the CPU's sums only", limit=_NOT_IN_BF16_ON_A_CPU),
    FieldRule("machine.threads", harmless="the order of the CPU's sums only", limit=_NOT_IN_BF16_ON_A_CPU),
    FieldRule("machine.cores", harmless="the threads are recorded apart"),
    FieldRule("machine.system", harmless="the kernel takes no part in arithmetic"),
    FieldRule("machine.device", follows=("target.name",)),
    FieldRule("dtype", follows=("training.precision",)),
    FieldRule("scoring.fingerprint", follows=("evaluation.fewshot",)),
    FieldRule("scoring.dtype", follows=("training.precision",)),
    FieldRule("scoring.batch_size", follows=("evaluation.batch_size", "training.precision")),
    FieldRule("scoring.attention", follows=("target.attention", "training.precision")),
    FieldRule("scoring.template", follows=(*_BASE, "data.template", "data.system")),
    FieldRule("scoring.items_trained_on", follows=("data.contamination",)),
    FieldRule("base.content", follows=(*_BASE, "base.init")),
    FieldRule("base.files.weights", follows=(*_BASE, "base.init")),
    FieldRule("base.files", follows=_BASE),
    FieldRule("base.tokenizer", follows=_BASE),
    FieldRule("method.alpha", follows=("method.name", "method.rank"), given=_same_scale),
    FieldRule("method.quantization", follows=("method.name",)),
    FieldRule("method", follows=("method.name",), given=_in_one_only),
    FieldRule("objective", follows=("objective.name",)),
    FieldRule("init_from", follows=("method.init_from",)),
    FieldRule("rows.template", follows=("data.template",)),
    FieldRule("rows.items", follows=("data.contamination",)),
    FieldRule("rows.card", follows=("data.name",)),
    FieldRule("rows", follows=("data.name", "data.split")),
    # other tokenizers cut the same rows otherwise; which rows they were must still be the same
    *(FieldRule(f"prepared.{field}", follows=("data", "objective")) for field in ("rows_in", "rows_trained", "rows_cut", "rows_dropped")),  # noqa: E501
    FieldRule("prepared", follows=(*_BASE, "data", "objective")),
    FieldRule("budget.examples", follows=(*_BASE, *_WALK)),
    FieldRule("budget.steps", follows=(*_BASE, *_WALK)),
    # a walk that ends inside an epoch reaches other rows under another seed
    FieldRule("budget.training_flops", follows=(*_BASE, *_WALK, "method", SEED)),
    FieldRule("budget", follows=(*_BASE, *_WALK, SEED)),
)  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """What a difference between two runs is."""

    kind: str
    """declared, harmless or confound."""
    because: str


def is_known(field: str) -> bool:
    """Whether there is such a field to vary."""
    return field not in NEVER_VARIED and (field in KNOWN or is_under(field, ("base.files", *OPEN_SECTIONS)))


def rule_of(field: str) -> FieldRule:
    """The first rule that a field stands under; one that allows nothing where there is none."""
    return next((rule for rule in RULES if is_under(field, (rule.field,))), FieldRule(field))


def concerns(field: str, one: Facts, other: Facts) -> bool:
    """Whether a field says something of both runs: how one was trained says nothing of a base as it is."""
    both = one["trained"] == other["trained"]
    return both or field in ("trained", "method.quantization") or not is_under(field, _OF_TRAINING)


def judge(field: str, one: Facts, other: Facts, vary: Sequence[str]) -> Judgement:
    """What the difference of two runs in one field is.

    Args:
        vary: the fields that are meant to differ.
    """
    if is_under(field, vary) and field not in NEVER_VARIED:
        return Judgement("declared", "varied")
    if field == "trained":
        return Judgement("declared", "one of them is the base as it is")
    rule = rule_of(field)
    for cause in rule.follows if rule.given(field, one, other) else ():
        # `data.fraction` is varied, and all of `data` is a cause; seeds differ inside every arm
        meant = [cause] if cause == SEED or is_under(cause, vary) else [v for v in vary if is_under(v, (cause,))]
        for varied in meant:
            if one.section(varied) != other.section(varied):
                return Judgement("declared", f"follows from {varied}")
    if not rule.harmless:
        return Judgement("confound", "not among what the study varies")
    if rule.limit is None or rule.limit.holds(one, other):
        return Judgement("harmless", rule.harmless)
    return Judgement("confound", rule.limit.otherwise)
