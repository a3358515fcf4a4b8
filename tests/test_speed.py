"""What the hardware is given to train fast with, and that none of it changes what is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_recipes import Workbench, questions, train, write_recipe

from workbench import files
from workbench.data.batches import CausalCollator, StepSampler
from workbench.data.rendering import IGNORED
from workbench.errors import TrainingError
from workbench.plan.cost import Work
from workbench.recipe.load import load
from workbench.recipe.resolve import looked_up, resolve
from workbench.training import speed
from workbench.training.head import CountedHead
from workbench.training.steps import WholeSteps

SMALL = Work(frozen_parameters=1.77e6, trained_parameters=2e5, attention_width=384, layers=4)
LARGE = Work(frozen_parameters=8e9, trained_parameters=4e7, attention_width=8192, layers=36)


def choices(tmp_path: Path, base: Path, work: Work = SMALL, **sections: Any) -> speed.Choices:
    """What is chosen for a recipe."""
    return speed.chosen(looked_up(load(write_recipe(tmp_path, base, questions(4), **sections), [])), work)


# ---- what is chosen


def test_on_a_cpu_nothing_is_taken_from_the_arithmetic(tmp_path: Path, small_base: Path) -> None:
    found = choices(tmp_path, small_base)
    assert (found.optimizer, found.kernels, found.workers) == ("adamw_torch_fused", "torch", 0)
    assert not found.tf32 and not found.compile and not found.pinned_memory


@pytest.mark.parametrize(
    ("target", "precision", "expected"),
    [("cuda", "bf16", True), ("cuda", "fp32", False), ("cuda", "fp16", False), ("ascend-910b", "bf16", False)],
)
def test_only_bf16_runs_on_nvidia_round_their_fp32_products(
    tmp_path: Path, small_base: Path, target: str, precision: str, expected: bool
) -> None:
    found = choices(tmp_path, small_base, target={"name": target}, training={"precision": precision})
    assert found.tf32 is expected


def test_accelerators_get_their_batches_made_beside_them(tmp_path: Path, small_base: Path) -> None:
    for target in ("cuda", "ascend-910b", "intel-xpu"):
        arguments = choices(tmp_path, small_base, target={"name": target}).arguments()
        assert arguments["dataloader_num_workers"] == 1 and arguments["dataloader_pin_memory"]
    assert choices(tmp_path, small_base, target={"name": "apple-mps"}).workers == 0


def test_the_optimizer_is_fused_where_the_backend_has_it(tmp_path: Path, small_base: Path) -> None:
    assert choices(tmp_path, small_base, target={"name": "cuda"}).optimizer == "adamw_torch_fused"
    assert choices(tmp_path, small_base, target={"name": "ascend-910b"}).optimizer == "adamw_torch"
    bits = choices(tmp_path, small_base, target={"name": "cuda"}, training={"optimizer": "paged_adamw_8bit"})
    assert bits.optimizer == "paged_adamw_8bit"


def test_starting_a_micro_batch_counts_for_less_the_larger_the_model(tmp_path: Path, small_base: Path) -> None:
    on_a_cpu = [choices(tmp_path, small_base, work).start_tokens for work in (SMALL, LARGE)]
    assert 20 < on_a_cpu[0] < 400 and on_a_cpu[1] == 0
    on_a_gpu = [choices(tmp_path, small_base, work, target={"name": "cuda"}).start_tokens for work in (SMALL, LARGE)]
    assert on_a_gpu[0] > on_a_gpu[1] > 10


def test_liger_is_refused_in_words_where_it_cannot_be(tmp_path: Path, small_base: Path) -> None:
    with pytest.raises(TrainingError, match="CPU has no Liger kernels"):
        choices(tmp_path, small_base, target={"kernels": "liger"})
    with pytest.raises(TrainingError, match="pip install liger-kernel"):  # (no test environment has it)
        choices(tmp_path, small_base, target={"name": "cuda", "kernels": "liger"})
    assert choices(tmp_path, small_base, target={"name": "cuda", "kernels": "torch"}).kernels == "torch"


def test_liger_leaves_the_fused_head_alone(tmp_path: Path, small_base: Path) -> None:
    arguments = replace(choices(tmp_path, small_base), kernels="liger").arguments()
    assert arguments["use_liger_kernel"]
    assert arguments["liger_kernel_config"] == {"fused_linear_cross_entropy": False}


def test_the_process_multiplies_as_its_run_says(tmp_path: Path, small_base: Path) -> None:
    recipe = write_recipe(tmp_path, small_base, questions(4))
    try:
        speed.settle_products(resolve(load(recipe, ["target=cuda", "training.precision=bf16"])))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        speed.settle_products(resolve(load(recipe, [])))
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_run_keeps_what_was_chosen(workbench: Workbench, tmp_path: Path, small_base: Path) -> None:
    run = train(workbench, write_recipe(tmp_path, small_base, questions(8)), tmp_path / "runs", "training.steps=1")
    kept = files.read_json(run.training)["choices"]
    assert kept["optimizer"] == "adamw_torch_fused" and kept["start_tokens"] > 0
    assert kept.keys() == speed.Choices.__dataclass_fields__.keys()


# ---- batches made by another process


def test_batches_made_by_another_process_are_the_same_in_the_same_order() -> None:
    texts = [list(range(1, 3 + at % 7)) for at in range(20)]
    rows = [{"input_ids": ids, "labels": ids, "text_bytes": 1, "row": f"a:{at}"} for at, ids in enumerate(texts)]

    def walk(workers: int) -> list[Any]:
        trainer = WholeSteps()
        trainer.args = SimpleNamespace(dataloader_num_workers=workers, dataloader_pin_memory=False)
        trainer.train_dataset, trainer.step_sampler = rows, StepSampler(len(rows), 6, seed=3)
        trainer.step_collator = CausalCollator(0, 20, "padded")
        loader = trainer.get_train_dataloader()
        epochs = []
        for number in (0, 1):
            loader.set_epoch(number)  # type: ignore[attr-defined]
            epochs.append([[(batch["rows"], batch["input_ids"].tolist()) for batch in step] for step in loader])
        return epochs

    here, there = walk(0), walk(1)
    assert here == there and here[0] != here[1]


# ---- the head


def padded(lengths: list[int], prompts: list[int]) -> dict[str, torch.Tensor]:
    """Rows of random tokens whose prompts and padding are not counted."""
    draw = torch.Generator().manual_seed(0)
    width = max(lengths)
    ids = torch.randint(5, 90, (len(lengths), width), generator=draw)
    labels, mask = ids.clone(), torch.ones_like(ids)
    for at, (length, prompt) in enumerate(zip(lengths, prompts, strict=True)):
        labels[at, :prompt] = labels[at, length:] = IGNORED
        mask[at, length:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def trained_gradients(model: Any) -> dict[str, torch.Tensor]:
    """The gradients, taken off the model."""
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("family", ["qwen3", "llama", "deepseek_v3"])
def test_the_head_gives_the_loss_of_the_counted_tokens_and_its_gradients(
    family_base: Callable[[str], Path], family: str
) -> None:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(family_base(family), dtype=torch.float32)
    batch = padded([9, 5, 7], [4, 1, 6])
    counted = int((batch["labels"][:, 1:] != IGNORED).sum())
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )
    (expected / counted).backward()
    wanted = trained_gradients(model)
    head = CountedHead(model)
    loss, balance = head(model, dict(batch), counted)
    assert balance is None and loss.item() == pytest.approx(expected.item() / counted, rel=1e-6)
    loss.backward()
    found = trained_gradients(model)
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-4, atol=1e-6) for name in wanted)


def test_the_head_sees_counted_positions_only(family_base: Callable[[str], Path]) -> None:
    """And the model is otherwise what it was."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(family_base("qwen3"), dtype=torch.float32).eval()
    batch = padded([9, 5, 7], [4, 1, 6])
    asked = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    before = model(**asked).logits
    head = CountedHead(model)
    seen: list[torch.Size] = []
    watch = model.base_model.register_forward_hook(lambda _, __, output: seen.append(output.last_hidden_state.shape))
    head(model, dict(batch), 10)
    watch.remove()
    assert seen == [(1, 10, 64)]
    assert torch.equal(model(**asked).logits, before)


def test_a_micro_batch_that_counts_nothing_gives_nothing(family_base: Callable[[str], Path]) -> None:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(family_base("qwen3"), dtype=torch.float32)
    batch = padded([4, 3], [4, 3])
    loss, _ = CountedHead(model)(model, dict(batch), 5)
    loss.backward()
    assert loss.item() == 0.0
    assert all((gradient == 0).all() for gradient in trained_gradients(model).values())
