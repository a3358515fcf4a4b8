"""rules: the table of refused and unwise combinations, for a terminal and as a page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from workbench.documents import dotted
from workbench.errors import Problem, UserError
from workbench.recipe.rules import RULES, TOPICS
from workbench.recipe.rules.rule import Rule
from workbench.verbs import terminal

_COLOURS = {"illegal": "red", "unwise": "yellow"}

_HEAD = """# Rules

The one table of combinations that are refused (*illegal*: they fail, or silently do something else than they say) or
only said (*unwise*). `workbench check` and `train` refuse the first and say where they stand, what to do, and the
`--set` options that do it; `check` and `plan` say the second. This page is made by `workbench rules --markdown`.
"""


def rules(words: Sequence[str], markdown: bool) -> None:
    """Print the table, or those of its rules that hold all the words."""
    if markdown:
        print(page(), end="")
        return
    chosen = [rule for rule in RULES if _matches(rule, words)]
    if not chosen:
        raise UserError(Problem("rules", f"none matches {' '.join(words)}", "`workbench rules` lists them all"))
    console = terminal.console()
    for rule in chosen:
        level = (rule.level, _COLOURS[rule.level])
        console.print(Text.assemble(level, " ", (dotted(rule.field), "bold"), f": {rule.reason}  ", (rule.id, "cyan")))
        console.print(Text(f"        {rule.fix}\n        {rule.source}", style="dim"))


def page() -> str:
    """docs/rules.md: the whole table in markdown."""
    parts = [_HEAD]
    for topic, table in TOPICS.items():
        lines = [
            f"| `{rule.id}` | {rule.level} | `{dotted(rule.field)}` | " + " | ".join(_told(rule)) + " |"
            for rule in table
        ]
        parts.append(
            "\n".join(
                [
                    f"## {topic}\n",
                    "| rule | level | field | why | instead | source |",
                    "|---|---|---|---|---|---|",
                    *lines,
                    "",
                ]
            )
        )
    return "\n".join(parts)


def _told(rule: Rule) -> tuple[str, str, str]:
    """A rule's sentences as cells of a markdown table."""
    return _cell(rule.reason), _cell(rule.fix), _cell(rule.source)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")


def _matches(rule: Rule, words: Sequence[str]) -> bool:
    text = " ".join((rule.id, rule.level, dotted(rule.field), rule.reason, rule.fix, rule.source)).lower()
    return all(word.lower() in text for word in words)
