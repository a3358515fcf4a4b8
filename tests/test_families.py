"""One recipe, four architectures: only the base changes; the result loads without the workbench."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from conftest import FAMILIES, write_rows
from small_recipes import Workbench, questions, train, write_recipe
from transformers import AutoModelForCausalLM

from workbench import files
from workbench.bases import Loading
from workbench.methods import proof, results
from workbench.methods.targets import fused_experts
from workbench.runs.run import Run

pytestmark = pytest.mark.slow  # the real tokenizer takes a second to load, and each run loads it twice

MIXTURES = ("qwen3_moe", "deepseek_v3")
# The template stored with the tokenizer ends every text with "template ends here", and is refused for it.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, family_base: Callable[[str], Path]) -> Path:
    """The one recipe (its base is the Llama), its rows and a suite that generates and chooses."""
    folder = tmp_path_factory.mktemp("families")
    test_rows = [
        {"prompt": "what lies on the mat today?", "completion": "the cat"},
        {"prompt": "who ran to the park?", "completion": "the dog"},
        {"prompt": "what colour has it?", "completion": "red"},
    ]
    write_rows(folder / "rows" / "test.jsonl", test_rows)
    suite = {
        "tasks": [
            {"name": "generate", "id": "says", "data": "asked", "max_new_tokens": 3},
            {"name": "choice", "id": "chooses", "data": "asked"},
        ]
    }
    (folder / "chat.jinja").write_text(CHAT_TEMPLATE)
    write_recipe(
        folder,
        family_base("llama"),
        questions(8),
        data={"template": "./chat.jinja"},
        training={"steps": 4, "batch_size": 4, "learning_rate": 1e-2, "checkpoint_every": 4},
        evaluation={"suite": "asked"},
    )
    (folder / "datasets" / "asked.yaml").write_text(
        yaml.safe_dump({"format": "prompt_completion", "splits": {"test": {"files": "../rows/test.jsonl"}}})
    )
    (folder / "suites").mkdir()
    (folder / "suites" / "asked.yaml").write_text(yaml.safe_dump(suite))
    return folder


def trained(workbench: Workbench, room: Path, base: Path, *settings: str) -> Run:
    return train(workbench, room / "small.yaml", room / "runs", f"base={base}", *settings)


def loaded_outside(base: Path, result: Path) -> Any:
    """What any other program would do with the run's result."""
    if (result / "adapter_config.json").exists():
        return peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), result).eval()
    return AutoModelForCausalLM.from_pretrained(result).eval()


def assert_result_is_what_was_trained(run: Run, base: Path) -> None:
    rows, memory = proof.load_probe(run.probe)
    outside = proof.logits(loaded_outside(base, run.adapter), rows)
    inside = proof.logits(results.load(Loading(base), run.adapter), rows)
    untouched = proof.logits(AutoModelForCausalLM.from_pretrained(base).eval(), rows)
    assert len(rows) == 3
    for at in range(len(rows)):
        torch.testing.assert_close(outside[at], memory[at], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(inside[at], memory[at], rtol=1e-5, atol=1e-5)
        assert float((outside[at] - untouched[at]).abs().max()) > 1e-2


def assert_scored(run: Run) -> None:
    tasks = files.read_json(run.results("asked"))["tasks"]
    assert tasks.keys() == {"says", "chooses"}
    assert all(facts["items"] == 3 and not facts["states"].get("error") for facts in tasks.values())


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_base_changes_and_the_result_trains_scores_and_loads_anywhere(
    workbench: Workbench, room: Path, family_base: Callable[[str], Path], family: str, method: str
) -> None:
    base = family_base(family)
    run = trained(workbench, room, base, f"method={method}")
    asked = files.read_json(run.resolved_file)["recipe"]
    assert asked["base"]["name"] == str(base) and asked["method"]["name"] == method
    counted = files.read_json(run.training)["parameters"]
    plain = AutoModelForCausalLM.from_pretrained(base)
    own = sum(parameter.numel() for parameter in plain.parameters())
    if method == "full":
        assert counted == {"total": own, "trainable": own}
        assert files.read_json(run.proof)["places"] == len(list(plain.parameters()))
    else:
        assert counted["total"] == own + counted["trainable"]
        linear = [name for name, module in plain.named_modules() if isinstance(module, torch.nn.Linear)]
        assert files.read_json(run.proof)["places"] == len(linear) - 1  # the output head is left alone
    assert_scored(run)
    base_runs = [path for path in room.glob("runs/base-*") if path.name.startswith(f"base-{family}-")]
    assert len(base_runs) == 1
    assert_scored(Run(base_runs[0]))
    assert_result_is_what_was_trained(run, base)


@pytest.mark.parametrize("family", MIXTURES)
def test_fused_experts_are_adapted_where_the_recipe_asks(
    workbench: Workbench, room: Path, family_base: Callable[[str], Path], family: str
) -> None:
    base = family_base(family)
    run = trained(workbench, room, base, "method.experts=all", "evaluation.suite=")
    saved = files.read_json(run.adapter / "adapter_config.json")
    experts = fused_experts(AutoModelForCausalLM.from_pretrained(base))
    assert experts and set(experts) <= set(saved["target_parameters"])
    assert_result_is_what_was_trained(run, base)


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_stay_as_they_are_unless_asked(
    workbench: Workbench, room: Path, family_base: Callable[[str], Path], family: str
) -> None:
    run = trained(workbench, room, family_base(family), "method=lora")
    saved = files.read_json(run.adapter / "adapter_config.json")
    assert not any(".experts." in name for name in saved["target_parameters"] or ())
    assert not any(".experts." in name for name in saved["target_modules"])


def test_dropout_on_layers_that_peft_adapts_as_parameters_is_refused_with_a_way_out(
    workbench: Workbench, room: Path, family_base: Callable[[str], Path]
) -> None:
    settings = [f"base={family_base('deepseek_v3')}", "method.dropout=0.1"]
    overrides = [word for setting in settings for word in ("--set", setting)]
    outcome = workbench("train", str(room / "small.yaml"), "--runs", str(room / "runs"), *overrides)
    assert outcome.status == 2
    assert "method.targets" in outcome.output and "dropout 0" in outcome.output
    attention = 'method.targets=["*self_attn*"]'
    run = trained(workbench, room, family_base("deepseek_v3"), "method.dropout=0.1", attention, "evaluation.suite=")
    assert_result_is_what_was_trained(run, family_base("deepseek_v3"))
