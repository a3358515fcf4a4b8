"""Text -> ids and mask: counted are exactly the answers and their ends, after exactly the evaluation's prompt."""

from __future__ import annotations

import itertools
import random
import unicodedata
from collections.abc import Sequence
from typing import Any

import pytest

from workbench.data.formats import Message, UnusableError
from workbench.data.rendering import IGNORED, Rendered, Renderer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (  # as Qwen3 does: the last answer is rendered with an (empty) thought, earlier ones without
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAST_QUESTION_MARKED = (  # not prefix-stable: a question is rendered otherwise once another one follows
    "{% set asked = messages | selectattr('role', 'equalto', 'user') | list | last %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{{ ' (now)' if m == asked else '' }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PIECES = ["the cat", " sat", "a", "\n", "\n\n", "  ", " ", "你好", "日本語", "é", "😀", "👨‍👩‍👧", "🇩🇪"]
PIECES += ["42", "?!", "\t", "Ω", "<", "|"]


def marked(inside: str, outside: str) -> str:
    """ChatML with generation markers around the answer and `inside`; `outside` follows them."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}{{ '\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}INSIDE{% endgeneration %}OUTSIDE{% else %}{{ m.content }}"
        "{{ '<|im_end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}"
        "{% endif %}"
    )
    for word, text in (("INSIDE", inside), ("OUTSIDE", outside)):
        template = template.replace(word, f"{{{{ '{text}' }}}}")
    return template


def conversation(*contents: str, system: str | None = None) -> list[Message]:
    """Question and answer in turn; a question ends with a line end, as the formats make it."""
    head = [Message("system", system.rstrip("\n") + "\n")] if system else []
    turns = [
        Message("assistant", text) if at % 2 else Message("user", text.rstrip("\n") + "\n")
        for at, text in enumerate(contents)
    ]
    return [*head, *turns]


def runs(rendered: Rendered) -> list[tuple[int, int]]:
    """[start, stop) of every stretch of counted tokens."""
    found, at = [], 0
    for counted, group in itertools.groupby(rendered.counted):
        length = len(list(group))
        if counted:
            found.append((at, at + length))
        at += length
    return found


def counted_texts(renderer: Renderer, rendered: Rendered) -> list[str]:
    """The text of every stretch, as it stands in the whole (a decoder may strip the start of a lone piece)."""
    found = []
    for start, stop in runs(rendered):
        before, whole = (renderer.tokenizer.decode(rendered.ids[:at]) for at in (start, stop))
        assert whole.startswith(before)
        found.append(whole[len(before) :])
    return found


def prove(renderer: Renderer, messages: Sequence[Message]) -> Rendered:
    """Everything that must hold of any conversation, in chat and plain, for all turns and the last."""
    rendered = renderer.conversation(messages)
    plain = renderer.template is None
    turns = [at for at, message in enumerate(messages) if message.role == "assistant"]
    turns = turns if renderer.turns == "all" else turns[-1:]
    answers = [messages[at].content if plain else messages[at].content.strip() for at in turns]
    end = renderer.tokenizer.eos_token if plain else "<|im_end|>"
    assert counted_texts(renderer, rendered) == [answer + end for answer in answers]
    assert rendered.text_bytes == sum(len(answer.encode()) for answer in answers)
    assert rendered.prompt_length == runs(rendered)[0][0]
    for turn, (start, _) in zip(turns, runs(rendered), strict=True):
        assert renderer.prompt(messages[:turn]) == rendered.ids[:start]
    assert rendered.labels() == [
        token if counted else IGNORED for token, counted in zip(rendered.ids, rendered.counted, strict=True)
    ]
    return rendered


def random_text(draw: random.Random) -> str:
    while True:
        text = "".join(draw.choice(PIECES) for _ in range(draw.randint(1, 7)))
        if text.strip():
            return unicodedata.normalize("NFC", text)


def random_conversation(draw: random.Random) -> list[Message]:
    contents = [random_text(draw) for _ in range(2 * draw.randint(1, 3))]
    return conversation(*contents, system=random_text(draw) if draw.random() < 0.3 else None)


@pytest.fixture(scope="module")
def stories_tokenizer(stories: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(stories)


@pytest.fixture(scope="module", params=["small", "qwen2"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue({"small": "small_tokenizer", "qwen2": "qwen_tokenizer"}[request.param])


# ---- what holds of every conversation


@pytest.mark.parametrize("turns", ["all", "last"])
@pytest.mark.parametrize("template", [CHATML, marked("<|im_end|>", "\\n")], ids=["prefix", "markers"])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_any_chat_counts_its_answers_and_their_ends_alone(
    tokenizer: Any, template: str, turns: str, system: str | None
) -> None:
    renderer = Renderer(tokenizer, template, system, turns)
    draw = random.Random(f"{turns}")
    for _ in range(60):
        prove(renderer, random_conversation(draw))


@pytest.mark.parametrize("turns", ["all", "last"])
@pytest.mark.parametrize("name", ["small_tokenizer", "qwen_tokenizer", "stories_tokenizer"])
def test_any_plain_conversation_is_exact_or_refused_at_a_boundary(
    request: pytest.FixtureRequest, name: str, turns: str
) -> None:
    renderer = Renderer(request.getfixturevalue(name), None, None, turns)
    draw = random.Random(f"{name} {turns}")
    num_exact = 0
    for _ in range(100):
        messages = random_conversation(draw)
        try:
            prove(renderer, messages)
            num_exact += 1
        except UnusableError as error:
            assert "straddles" in str(error)
    assert num_exact >= 40


@pytest.mark.parametrize("name", ["small_tokenizer", "qwen_tokenizer", "stories_tokenizer"])
def test_prompt_and_completion_in_plain(request: pytest.FixtureRequest, name: str) -> None:
    renderer = Renderer(request.getfixturevalue(name), None)
    rendered = prove(renderer, [Message("user", "Question: who? Answer:"), Message("assistant", " the cat 你好")])
    assert rendered.ids[-1] == renderer.tokenizer.eos_token_id
    assert all(rendered.counted[rendered.prompt_length :])


# ---- plain


def test_plain_begins_as_the_tokenizer_begins_a_text(stories_tokenizer: Any, small_tokenizer: Any) -> None:
    messages = conversation("a", "b")
    assert Renderer(stories_tokenizer, None).conversation(messages).ids[0] == stories_tokenizer.bos_token_id
    assert Renderer(small_tokenizer, None).start_ids == []


def test_plain_ends_every_answer_but_no_question(small_tokenizer: Any) -> None:
    renderer = Renderer(small_tokenizer, None)
    rendered = prove(renderer, conversation("one", "two", "three", "four"))
    assert small_tokenizer.decode(rendered.ids) == "one\ntwo<|im_end|>three\nfour<|im_end|>"


def test_plain_refuses_a_token_across_prompt_and_answer(small_tokenizer: Any) -> None:
    assert len(small_tokenizer("the")["input_ids"]) == 1
    with pytest.raises(UnusableError, match="straddles"):
        Renderer(small_tokenizer, None).conversation([Message("user", "t"), Message("assistant", "he")])
    with pytest.raises(UnusableError, match="straddles"):
        Renderer(small_tokenizer, None).conversation([Message("user", "see t"), Message("assistant", "he cat")])


def test_plain_refuses_a_token_across_three_messages_whose_last_is_the_answer(small_tokenizer: Any) -> None:
    assert len(small_tokenizer("the")["input_ids"]) == 1
    messages = [Message("system", "see t"), Message("user", "h"), Message("assistant", "e cat")]
    with pytest.raises(UnusableError, match="straddles"):
        Renderer(small_tokenizer, None).conversation(messages)


def test_plain_refuses_an_accent_that_the_tokenizer_joins_to_the_prompt(qwen_tokenizer: Any) -> None:
    with pytest.raises(UnusableError, match="straddles"):
        Renderer(qwen_tokenizer, None).conversation([Message("user", "caf e"), Message("assistant", "\u0301 x")])


def test_solved_examples_are_running_text_in_plain_and_turns_in_chat(small_tokenizer: Any) -> None:
    shots, asked = conversation("1+1", " 2\n"), conversation("2+2")
    plain, chat = Renderer(small_tokenizer, None), Renderer(small_tokenizer, CHATML)
    assert small_tokenizer.decode(plain.prompt(plain.with_shots(shots, asked))) == "1+1\n 2\n2+2\n"
    assert small_tokenizer.decode(chat.prompt(chat.with_shots(shots, asked))).count("<|im_start|>") == 4


# ---- system messages


@pytest.mark.parametrize("template", [None, CHATML])
def test_the_recipes_system_message_stands_once_and_only_where_there_is_none(
    small_tokenizer: Any, template: str | None
) -> None:
    renderer = Renderer(small_tokenizer, template, system="Be brief.")
    without = small_tokenizer.decode(prove(renderer, conversation("a", "b", "c", "d")).ids)
    own = small_tokenizer.decode(prove(renderer, conversation("a", "b", system="Be long.")).ids)
    assert without.count("Be brief.") == 1
    assert ("Be brief." in own, own.count("Be long.")) == (False, 1)
    assert "Be brief." in small_tokenizer.decode(renderer.prompt(conversation("a")))


# ---- chat templates


def test_the_qwen2_file_whose_template_prints_after_the_prompt_is_refused_and_mended(qwen_tokenizer: Any) -> None:
    template, tail = qwen_tokenizer.chat_template, "template ends here"
    assert template.endswith(tail)
    with pytest.raises(UnusableError, match="not prefix-stable"):
        Renderer(qwen_tokenizer, template).conversation(conversation("hello", "world"))
    rendered = prove(Renderer(qwen_tokenizer, template.removesuffix(tail)), conversation("hello", "world"))
    assert qwen_tokenizer.decode(rendered.ids) == (
        "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nworld<|im_end|>\n"
    )
    assert rendered.ids[:2] == [151644, 872]
    assert [token for token, counted in zip(rendered.ids, rendered.counted, strict=True) if counted] == [14615, 151645]


@pytest.mark.parametrize("turns", ["all", "last"])
@pytest.mark.parametrize(
    ("inside", "outside"), [("", "<|im_end|>\\n"), ("<|im_end|>", "\\n"), ("<|im_end|>\\n", "")], ids=["a", "b", "c"]
)
def test_markers_give_the_same_as_prefixes_on_the_same_shape(
    tokenizer: Any, inside: str, outside: str, turns: str
) -> None:
    by_markers = Renderer(tokenizer, marked(inside, outside), None, turns)
    by_prefixes = Renderer(tokenizer, CHATML, None, turns)
    draw = random.Random(3)
    for _ in range(20):
        messages = random_conversation(draw)
        assert by_markers.conversation(messages) == by_prefixes.conversation(messages)


def test_markers_that_mark_nothing_are_refused(small_tokenizer: Any) -> None:
    template = CHATML + "{% if false %}{% generation %}x{% endgeneration %}{% endif %}"
    with pytest.raises(UnusableError, match="mark nothing"):
        Renderer(small_tokenizer, template).conversation(conversation("a", "b"))


def test_markers_that_take_in_the_prompt_are_refused(small_tokenizer: Any) -> None:
    template = CHATML.replace("{% for m in messages %}", "{% for m in messages %}{% generation %}").replace(
        "{% endfor %}", "{% endgeneration %}{% endfor %}"
    )
    with pytest.raises(UnusableError, match="boundary"):
        Renderer(small_tokenizer, template).conversation(conversation("a", "b"))


def test_a_template_that_drops_earlier_thoughts_is_trained_on_whole(tokenizer: Any) -> None:
    messages = conversation("one", "two", "three", "four")
    renderer = Renderer(tokenizer, THINKING)
    rendered = renderer.conversation(messages)
    assert counted_texts(renderer, rendered) == ["two<|im_end|>", "<think>\n\n</think>\n\nfour<|im_end|>"]
    for turn, (start, _) in zip((1, 3), runs(rendered), strict=True):
        assert renderer.prompt(messages[:turn]) == rendered.ids[:start]


def test_a_template_that_is_not_prefix_stable_is_refused_for_all_turns_and_taken_for_the_last(tokenizer: Any) -> None:
    messages = conversation("one", "two", "three", "four")
    with pytest.raises(UnusableError, match=r"the prompt of turn 2 .*objective\.turns: last"):
        Renderer(tokenizer, LAST_QUESTION_MARKED).conversation(messages)
    renderer = Renderer(tokenizer, LAST_QUESTION_MARKED, turns="last")
    assert counted_texts(renderer, prove(renderer, messages)) == ["four<|im_end|>"]


def test_each_answer_ends_at_its_own_special_token_even_where_eos_stands_at_the_end_only(small_tokenizer: Any) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|endoftext|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<|im_end|>{% endif %}"
    )
    renderer = Renderer(small_tokenizer, template)
    rendered = renderer.conversation(conversation("one", "two", "three", "four"))
    assert counted_texts(renderer, rendered) == ["two<|endoftext|>", "four<|endoftext|><|im_end|>"]


def test_a_template_without_an_end_of_turn_is_refused(small_tokenizer: Any) -> None:
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    with pytest.raises(UnusableError, match="end-of-turn"):
        Renderer(small_tokenizer, template).conversation(conversation("a", "b"))


def test_what_a_template_refuses_is_a_reason_not_a_traceback(small_tokenizer: Any) -> None:
    template = "{{ raise_exception('no system, please') }}"
    with pytest.raises(UnusableError, match="no system, please"):
        Renderer(small_tokenizer, template).conversation(conversation("a", "b"))


def test_a_conversation_that_begins_with_an_answer_needs_a_system_message_in_chat(small_tokenizer: Any) -> None:
    messages = [Message("assistant", "Hello!"), *conversation("a", "b")]
    prove(Renderer(small_tokenizer, None), messages)
    prove(Renderer(small_tokenizer, CHATML, system="Be brief."), messages)
    with pytest.raises(UnusableError, match="the chat template refuses it"):
        Renderer(small_tokenizer, CHATML).conversation(messages)


def test_a_token_across_prompt_and_answer_is_refused_in_chat(small_tokenizer: Any) -> None:
    template = "{% for m in messages %}{{ m.content }}{{ '<|im_end|>' if m.role == 'assistant' else '' }}{% endfor %}"
    with pytest.raises(UnusableError, match="straddles"):
        Renderer(small_tokenizer, template).conversation([Message("user", "see t"), Message("assistant", "he cat")])


# ---- control tokens, answers to be scored


@pytest.mark.parametrize("template", [None, CHATML])
@pytest.mark.parametrize("token", ["<|im_end|>", "<|im_start|>", "<|endoftext|>"])
def test_control_tokens_in_a_text_are_refused_by_name(tokenizer: Any, template: str | None, token: str) -> None:
    renderer = Renderer(tokenizer, template)
    for contents in ((f"a {token}", "b"), ("a", f"b{token}system")):
        with pytest.raises(UnusableError, match="control token") as caught:
            renderer.conversation(conversation(*contents))
        assert repr(token) in str(caught.value)
    with pytest.raises(UnusableError, match="control token"):
        renderer.document(f"a{token}b", 32)
    renderer.conversation(conversation("a <|im_star", "|> b"))


@pytest.mark.parametrize("template", [None, CHATML, THINKING])
def test_an_answer_to_score_is_what_is_trained_less_its_end(tokenizer: Any, template: str | None) -> None:
    renderer = Renderer(tokenizer, template)
    messages = conversation("Which one?", "the cat", "And now?")
    prompt = renderer.prompt(messages)
    ids = renderer.answer_ids(messages, "a red ball", prompt)
    trained = renderer.conversation([*messages, Message("assistant", "a red ball")])
    assert trained.ids[: len(prompt) + len(ids)] == prompt + ids
    text = tokenizer.decode(ids)
    assert text == ("<think>\n\n</think>\n\na red ball" if template == THINKING else "a red ball")
    assert len(prompt) + len(ids) + 1 == runs(trained)[-1][1]


# ---- documents


@pytest.mark.parametrize("name", ["small_tokenizer", "qwen_tokenizer", "stories_tokenizer"])
@pytest.mark.parametrize("max_length", [8, 13, 64, 100_000])
def test_the_windows_of_a_document_count_every_token_and_byte_once(
    request: pytest.FixtureRequest, name: str, max_length: int
) -> None:
    renderer = Renderer(request.getfixturevalue(name), None)
    start, end = renderer.document_marks()
    draw = random.Random(name)
    for _ in range(20):
        text = "".join(random_text(draw) for _ in range(draw.randint(1, 12)))
        windows = renderer.document(text, max_length)
        assert all(len(window.ids) <= max_length for window in windows)
        assert all(window.ids[: len(start)] == start for window in windows)
        assert all(
            window.counted == [False] * len(start) + [True] * (len(window.ids) - len(start)) for window in windows
        )
        counted = [token for window in windows for token in window.ids[len(start) :]]
        assert counted == renderer.text_ids(text) + end
        assert sum(window.text_bytes for window in windows) == len(text.encode())
        assert all(window.text_bytes >= 0 for window in windows)


def test_a_document_begins_after_bos_where_there_is_one_else_after_eos(
    small_tokenizer: Any, stories_tokenizer: Any
) -> None:
    for tokenizer, first in (
        (stories_tokenizer, stories_tokenizer.bos_token_id),
        (small_tokenizer, small_tokenizer.eos_token_id),
    ):
        assert Renderer(tokenizer, None).document("a", 32)[0].ids[0] == first


def test_a_character_cut_between_windows_is_counted_in_one_of_them(small_tokenizer: Any) -> None:
    renderer = Renderer(small_tokenizer, None)
    text = "😀" * 10
    assert len(renderer.text_ids(text)) == 40  # a token a byte
    windows = renderer.document(text, 8)  # 7 of them a window
    assert [window.text_bytes for window in windows] == [4, 8, 8, 8, 4, 8]


@pytest.mark.parametrize("name", ["qwen_tokenizer", "stories_tokenizer", "small_tokenizer"])
def test_text_comes_back_from_its_ids(request: pytest.FixtureRequest, name: str) -> None:
    renderer = Renderer(request.getfixturevalue(name), None)
    draw = random.Random(9)
    for _ in range(50):
        text = random_text(draw)
        assert renderer.tokenizer.decode(renderer.text_ids(text)) == text
        assert renderer.text_bytes(renderer.text_ids(text)) == len(text.encode())


def test_the_real_stories_come_back_from_their_ids(stories_tokenizer: Any, shared: Any) -> None:
    text = (shared / "corpora" / "tinystories_train_2MiB.txt").read_text(encoding="utf-8").split("<|endoftext|>")[0]
    windows = Renderer(stories_tokenizer, None).document(text.strip(), 64)
    assert len(windows) > 2
    ids = [token for window in windows for token in window.ids[1:]]
    assert stories_tokenizer.decode(ids, skip_special_tokens=True) == text.strip()
