"""The only place where text becomes token ids: an example and a template in, ids and the loss mask out.

A conversation is rendered and tokenised once, as a whole. The mask is cut by character offsets: from the template's
generation markers where it has them, else between the prompt (which must be a prefix, token by token, of the whole)
and the end-of-turn token. What cannot be placed exactly is refused, never guessed.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from workbench.data import special_tokens
from workbench.data.formats import Message, UnusableError, last_answer
from workbench.errors import DataError, Problem

IGNORED = -100
"""The label of a token that is not counted (torch's convention)."""

_MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Rendered:
    """Token ids of one example, and which of them are counted in the loss."""

    ids: list[int]
    counted: list[bool]
    prompt_length: int
    """Tokens before the first counted one."""
    text_bytes: int
    """UTF-8 bytes of the counted text, end-of-turn tokens left out."""

    def labels(self) -> list[int]:
        """The ids, with IGNORED where a token is not counted."""
        return [token if counted else IGNORED for token, counted in zip(self.ids, self.counted, strict=True)]


class Renderer:
    """Renders for one tokenizer and one template."""

    def __init__(self, tokenizer: Any, template: str | None, system: str | None = None, turns: str = "all") -> None:
        """`template`: a Jinja chat template, or None for the texts as they stand (plain)."""
        self.tokenizer = tokenizer
        self.template = template
        self.system = system
        self.turns = turns
        self.start_ids = special_tokens.start_ids(tokenizer)
        special = special_tokens.texts(tokenizer)
        self.special_ids = frozenset(special.values())
        self.end_ids = special_tokens.end_ids(tokenizer)
        self._control = re.compile("|".join(map(re.escape, special))) if special else None

    def conversation(self, messages: Sequence[Message]) -> Rendered:
        """A whole conversation with its assistant turns counted (`turns`: all of them, or the last).

        Raises:
            UnusableError: the row cannot be rendered exactly; says why.
        """
        self._refuse_control(message.content for message in messages)
        turns = [at for at, message in enumerate(messages) if message.role == "assistant"]
        turns = turns if self.turns == "all" else turns[-1:]
        rendered = self._plain(messages, turns) if self.template is None else self._chat(messages, turns)
        self._prove(rendered, messages)
        return rendered

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids that an answer is generated from, or scored after: the same as in training.

        Raises:
            UnusableError: it cannot be rendered exactly.
        """
        self._refuse_control(message.content for message in messages)
        if self.template is None:
            return [token for token, _ in self._plain_tokens(messages)]
        return self._encode(self._render(messages, generation_prompt=True))[0]

    def answer_ids(self, messages: Sequence[Message], answer: str, prompt: list[int]) -> list[int]:
        """The ids of an answer after a prompt, as they stand in training, without the end of the turn where the
        answer's own tokens end before it.

        Raises:
            UnusableError: the answer cannot be rendered exactly.
        """
        rendered = self.conversation([*messages, Message("assistant", answer)])
        if rendered.ids[: len(prompt)] != prompt:
            raise UnusableError("the prompt is rendered otherwise when an answer follows")
        after = zip(rendered.ids[len(prompt) :], rendered.counted[len(prompt) :], strict=True)
        answer_ids = [token for token, counted in after if counted]
        while answer_ids and answer_ids[-1] in self.end_ids | self.special_ids:
            answer_ids.pop()
        return answer_ids

    def document(self, text: str, max_length: int) -> list[Rendered]:
        """Raw text as windows of at most `max_length` tokens, each after the start token, every token counted once;
        the last window ends with the end-of-text token."""
        self._refuse_control([text])
        ids, offsets = self._encode(text)
        start, end = self.document_marks()
        width = max_length - len(start)
        ids = ids + end
        firsts = range(0, len(ids), width)
        # A character that is cut between two windows is counted in the second.
        begins = [0, *(offsets[at][0] if at < len(offsets) else len(text) for at in firsts[1:]), len(text)]
        windows = []
        for at, (begin, stop) in zip(firsts, pairwise(begins), strict=True):
            piece = ids[at : at + width]
            counted = [False] * len(start) + [True] * len(piece)
            windows.append(Rendered(start + piece, counted, len(start), len(text[begin:stop].encode())))
        return windows

    def document_marks(self) -> tuple[list[int], list[int]]:
        """What stands before and after a document: BOS (else EOS), EOS.

        Raises:
            DataError: the tokenizer has neither.
        """
        begin = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.tokenizer.eos_token_id
        if begin is None:
            raise DataError(Problem("base", "its tokenizer has neither a BOS nor an EOS token", "choose another base"))
        return [begin], [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]

    def text_ids(self, text: str) -> list[int]:
        """The ids of bare text, without any special token."""
        return self._encode(text)[0]

    def text_bytes(self, ids: list[int]) -> int:
        """UTF-8 bytes of the text of some ids, special tokens left out."""
        return len(self.tokenizer.decode(ids, skip_special_tokens=True).encode())

    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(encoding["input_ids"]), [tuple(pair) for pair in encoding["offset_mapping"]]

    def _refuse_control(self, texts: Any) -> None:
        for text in texts:
            found = self._control.search(text) if self._control else None
            if found:
                raise UnusableError(f"holds the control token {found.group()!r} as text")

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        if self.system is None or (messages and messages[0].role == "system"):
            return list(messages)
        return [Message("system", self.system.rstrip("\n") + "\n"), *messages]

    def with_shots(self, shots: Sequence[Message], asked: Sequence[Message]) -> list[Message]:
        """Solved examples before a question: turns of their own in a chat, running text where texts stand as they are
        (an end-of-text token between examples would end the thread)."""
        if self.template is not None or not shots:
            return [*shots, *asked]
        text = "".join(message.content for message in shots)
        return [Message(asked[0].role, text + asked[0].content), *asked[1:]]

    def _plain(self, messages: Sequence[Message], turns: list[int]) -> Rendered:
        shift = len(self._with_system(messages)) - len(messages)
        owners = self._plain_tokens(messages)
        counted = [owner is not None and owner - shift in turns for _, owner in owners]
        size = sum(len(messages[turn].content.encode()) for turn in turns)
        return Rendered([token for token, _ in owners], counted, _first(counted), size)

    def _plain_tokens(self, messages: Sequence[Message]) -> list[tuple[int, int | None]]:
        """Token ids with the message each belongs to; an end-of-text token closes every answer."""
        if self.tokenizer.eos_token_id is None:
            raise DataError(
                Problem("base", "its tokenizer has no EOS token to end a plain answer with", "use a base that has one")
            )
        whole = self._with_system(messages)
        ends = list(accumulate(len(message.content) for message in whole))
        answers = {at for at, message in enumerate(whole) if message.role == "assistant"}
        ids, offsets = self._encode("".join(message.content for message in whole))
        tokens: list[tuple[int, int | None]] = [(token, None) for token in self.start_ids]
        before = 0
        for token, (begin, stop) in zip(ids, offsets, strict=True):
            owner = min(bisect_right(ends, begin), len(whole) - 1)
            reached = bisect_left(ends, stop)
            if reached > owner and answers.intersection(range(owner, reached + 1)):
                raise UnusableError("a token straddles the boundary between prompt and answer")
            if owner != before and before in answers:
                tokens.append((self.tokenizer.eos_token_id, before))
            before = owner
            tokens.append((token, owner))
        if before in answers:
            tokens.append((self.tokenizer.eos_token_id, before))
        return tokens

    def _chat(self, messages: Sequence[Message], turns: list[int]) -> Rendered:
        assert self.template is not None
        text = self._render(messages)
        ids, offsets = self._encode(text)
        marked = _MARKERS.search(self.template) is not None
        if marked:
            spans = self._marked_spans(messages)
            spans = spans if self.turns == "all" else spans[-1:]
        else:
            starts = [self._prompt_end(messages, at, text) for at in turns]
            spans = list(pairwise([*starts, len(text)]))
        counted = [False] * len(ids)
        ends = []
        for start, end in spans:
            last = self._end_of_turn(ids, offsets, start, end, marked)
            for at in _tokens_within(offsets, start, offsets[last][1]):
                counted[at] = True
            ends.append(last)
        size = sum(len(text[start : offsets[last][0]].encode()) for (start, _), last in zip(spans, ends, strict=True))
        return Rendered(ids, counted, _first(counted), size)

    def _render(self, messages: Sequence[Message], generation_prompt: bool = False) -> str:
        words = [{"role": m.role, "content": m.content.strip()} for m in self._with_system(messages)]
        try:
            text = self.tokenizer.apply_chat_template(
                words, tokenize=False, add_generation_prompt=generation_prompt, chat_template=self.template
            )
        except (jinja2.TemplateError, TypeError, LookupError, ValueError) as error:
            raise UnusableError(f"the chat template refuses it: {error}") from None
        return str(text)

    def _marked_spans(self, messages: Sequence[Message]) -> list[tuple[int, int]]:
        words = [{"role": m.role, "content": m.content.strip()} for m in self._with_system(messages)]
        _, spans = render_jinja_template(
            conversations=[words],
            chat_template=self.template,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        if not spans[0]:
            raise UnusableError("the template's generation markers mark nothing")
        return [(int(start), int(end)) for start, end in spans[0]]

    def _prompt_end(self, messages: Sequence[Message], turn: int, text: str) -> int:
        """Where the prompt of a turn ends in the whole text, which must begin with it."""
        prefix = self._render(messages[:turn], generation_prompt=True)
        if not text.startswith(prefix):
            raise UnusableError(
                "the template is not prefix-stable: the prompt of turn "
                f"{turn + 1} is rendered otherwise inside the whole conversation (try objective.turns: last)"
            )
        return len(prefix)

    def _end_of_turn(self, ids: list[int], offsets: list[tuple[int, int]], start: int, end: int, marked: bool) -> int:
        """The position of the token that ends the turn which begins at character `start`: the last one that is marked,
        or follows at once; without markers the first one before `end`, where the next turn's prompt ends."""
        inside = [at for at, (begin, _) in enumerate(offsets) if start <= begin <= end]
        for kind in (self.end_ids, self.special_ids):
            found = [at for at in inside if ids[at] in kind]
            within = [at for at in found if offsets[at][0] < end]
            if within:
                return within[-1] if marked else within[0]
            if found and marked:
                return found[0]
        raise UnusableError("the template ends the answer with no end-of-turn token")

    def _prove(self, rendered: Rendered, messages: Sequence[Message]) -> None:
        """At least one token counted, the end counted, and the prompt equal, id for id, to the evaluation's."""
        if not any(rendered.counted):
            raise UnusableError("no token of it is counted in the loss")
        trained = {token for token, counted in zip(rendered.ids, rendered.counted, strict=True) if counted}
        if not trained & (self.end_ids | self.special_ids):
            raise UnusableError("the end-of-turn token is not counted")
        turn = last_answer(tuple(messages))
        first = next(at for at, message in enumerate(messages) if message.role == "assistant")
        asked = self.prompt(messages[: first if self.turns == "all" else turn])
        if rendered.ids[: len(asked)] != asked or rendered.prompt_length != len(asked):
            raise UnusableError(
                "a token straddles the boundary between prompt and answer, or the template renders the "
                "prompt otherwise when the answer follows"
            )


def _tokens_within(offsets: list[tuple[int, int]], start: int, end: int) -> list[int]:
    inside = []
    for at, (begin, stop) in enumerate(offsets):
        if begin < start < stop:
            raise UnusableError("a token straddles the boundary between prompt and answer")
        if begin >= start and stop <= end and stop > begin:
            inside.append(at)
    return inside


def _first(counted: list[bool]) -> int:
    return counted.index(True) if True in counted else len(counted)
