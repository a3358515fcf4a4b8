"""Memory: the closed form against traced steps, and both against what was measured on a GPU and on this CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_cases import ANCHORS, CASES, GIB, Case, anchor, formula, lora, measured_gib, setting_of, traced
from torch.profiler import ProfilerActivity, profile
from trl.trainer.utils import add_fused_lm_head

from workbench.catalog.bases import bases
from workbench.methods.apply import apply
from workbench.plan import shapes
from workbench.plan.activations import Batch
from workbench.plan.memory import Setting, memory, weight_bytes
from workbench.recipe.schema import Full, Ia3, Lora, Qlora
from workbench.training.skeleton import Skeleton, build
from workbench.training.tracing import Step, trace


@pytest.fixture(scope="session")
def configs(shared: Path) -> Path:
    """Real config.json files."""
    return shared / "configs"


# --- against measured peaks ------------------------------------------------------------------------------------------


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ANCHORS)
def test_the_trace_is_within_5_percent_of_what_was_measured_on_a_gpu(
    shared: Path, configs: Path, tmp_path: Path, name: str
) -> None:
    """PEFT's method comparison: Llama-3.2-3B, 4 x 768 tokens, on one L40S."""
    measured = measured_gib(shared / "anchors")[name]
    found = traced(anchor(name), configs, tmp_path / "base").peak_bytes / GIB
    assert found == pytest.approx(measured, rel=0.05)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ANCHORS)
def test_the_closed_form_is_within_10_percent_of_what_was_measured_on_a_gpu(
    shared: Path, configs: Path, name: str
) -> None:
    measured = measured_gib(shared / "anchors")[name]
    assert formula(anchor(name), configs).training_bytes / GIB == pytest.approx(measured, rel=0.10)


# --- against traced steps --------------------------------------------------------------------------------------------


@pytest.mark.shared_data
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_the_closed_form_agrees_with_the_trace(configs: Path, tmp_path: Path, case: Case) -> None:
    found, predicted = traced(case, configs, tmp_path / "base"), formula(case, configs)
    assert predicted.training_bytes == pytest.approx(found.peak_bytes, rel=0.10)
    stays = sum(predicted.stays.values())
    assert stays == pytest.approx(found.weights_bytes + found.state_bytes, rel=0.02), "what stays has no excuse"


def test_the_trace_sees_what_a_loop_holds_on_to(configs: Path, tmp_path: Path) -> None:
    """Outputs that a caller keeps hold the logits: it would be wrong to give two different loops one peak."""
    case = replace(anchor("lora--llama-3.2-3B-rank32"), layers=2)
    held = traced(case, configs, tmp_path / "base").peak_bytes
    fused = traced(replace(case, plain_loop=False), configs, tmp_path / "base").peak_bytes
    assert held > fused + 4 * 768 * 128_256 * 10


# --- against this CPU ------------------------------------------------------------------------------------------------


def _measured(model: Any, step: Step) -> float:
    """Bytes at the allocation peak of one real step, from the allocator's own events."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], fused=True)
    ids = torch.zeros(step.rows, step.length, dtype=torch.long)

    def walk() -> None:
        mask = torch.ones_like(ids)
        loss = model(input_ids=ids, labels=ids, attention_mask=mask, fused_lm_head=True).loss
        loss.backward()
        del loss
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    walk()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        walk()
    assert watched.profiler is not None and watched.profiler.kineto_results is not None
    events = [one for one in watched.profiler.kineto_results.events() if one.name() == "[memory]"]
    assert events, "the profiler saw no allocation"
    now = peak = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    kept = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in
            (*model.parameters(), *model.buffers())}  # fmt: skip
    state = sum(value.numel() * value.element_size() for one in optimizer.state.values() for value in one.values())
    return float(sum(kept.values()) + state + peak)


@pytest.mark.parametrize(
    ("family", "method", "checkpointing"),
    [
        ("qwen3", Lora(rank=8, alpha=16.0), False),
        ("qwen3", Lora(rank=8, alpha=16.0), True),
        ("qwen3", Lora(rank=8, alpha=16.0, variant="dora"), False),
        ("llama", Full(), False),
        ("llama", Full(), True),
        ("llama", Ia3(), False),
    ],
    ids=["lora", "lora-checkpointed", "dora", "full", "full-checkpointed", "ia3"],
)
def test_the_trace_agrees_with_a_real_step_on_this_cpu(family: str, method: Any, checkpointing: bool) -> None:
    common: dict[str, Any] = {"vocab_size": 4096, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6,
                              "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
    config: Any = (
        transformers.LlamaConfig(**common) if family == "llama" else transformers.Qwen3Config(**common, head_dim=64)
    )
    step = Step(4, 128, on_accelerator=False)
    model = apply(transformers.AutoModelForCausalLM.from_config(config), method, 0)
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    if checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        if base is not model:
            base.enable_input_require_grads()
    model.train()
    real = _measured(model, step)
    found = trace(build(Skeleton(config, method, "fp32", "sdpa", checkpointing)), step)
    assert found.peak_bytes == pytest.approx(real, rel=0.10)


# --- properties ------------------------------------------------------------------------------------------------------


def _setting(base: str, method: Any, **fields: Any) -> Setting:
    model = shapes.from_row(bases()[base])
    case = Case("", method, **{name: fields.pop(name) for name in ("rows", "length") if name in fields})
    return replace(setting_of(case, model), **fields)


_BASES = st.sampled_from(["qwen3-0.6b", "llama-3.2-3b", "qwen3-30b-a3b", "deepseek-v2-lite", "mistral-7b-v0.3"])
_RANKS = st.integers(1, 256)
_METHODS = st.sampled_from([lora(), Full(), Ia3(targets=["o_proj"], feedforward_targets=[]), Qlora(alpha=32.0)])
_ROWS, _LENGTHS = st.integers(1, 64), st.integers(16, 8192)
_SWITCH = st.booleans()
_MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@_MANY
@given(_BASES, _RANKS, _RANKS, _ROWS, _LENGTHS, _SWITCH)
def test_more_rank_never_takes_less(base: str, one: int, two: int, rows: int, length: int, again: bool) -> None:
    small, large = sorted((one, two))
    taken = [
        memory(_setting(base, Lora(rank=rank, alpha=1.0), rows=rows, length=length, checkpointing=again)).bytes
        for rank in (small, large)
    ]
    assert taken[0] <= taken[1]


@_MANY
@given(_BASES, _ROWS, _ROWS, _LENGTHS, _LENGTHS, _SWITCH, _METHODS)
def test_more_rows_and_longer_rows_never_take_less(
    base: str, rows: int, more_rows: int, length: int, longer: int, again: bool, method: Any
) -> None:
    smaller = _setting(base, method, rows=min(rows, more_rows), length=min(length, longer), checkpointing=again)
    larger = replace(smaller, batch=Batch(max(rows, more_rows), max(length, longer)))
    small, large = memory(smaller), memory(larger)
    assert small.bytes <= large.bytes
    assert all(small.stages[name] <= large.stages[name] for name in small.stages)


@_MANY
@given(_BASES, st.integers(1, 64), st.integers(1, 64), _ROWS, _LENGTHS, st.sampled_from([lora(), Full()]))
def test_more_devices_never_take_more_of_what_is_sharded(
    base: str, one: int, two: int, rows: int, length: int, method: Any
) -> None:
    few, many = sorted((max(one, 2), max(two, 2)))
    taken = [memory(_setting(base, method, rows=rows, length=length, shards=shards)) for shards in (few, many)]
    assert sum(taken[0].stays.values()) >= sum(taken[1].stays.values())
    assert taken[0].bytes >= taken[1].bytes


def test_more_parameters_never_take_less() -> None:
    """Over the catalog's dense bases of one vocabulary: by their size, all else equal."""
    rows = [row for row in bases().values() if row.family == "qwen" and row.name.startswith("qwen3-") and
            row.shape.experts is None and row.shape.linear_attention is None]  # fmt: skip
    rows.sort(key=lambda row: row.parameters)
    assert len(rows) >= 6
    for method in (lora(), Full(), Qlora(alpha=32.0)):
        taken = [memory(_setting(row.name, method, rows=4, length=512)).bytes for row in rows]
        assert taken == sorted(taken)


def test_checkpointing_and_four_bits_save() -> None:
    plain = memory(_setting("qwen3-8b", lora(), rows=4, length=1024))
    again = memory(_setting("qwen3-8b", lora(), rows=4, length=1024, checkpointing=True))
    packed = _setting("qwen3-8b", Qlora(rank=16, alpha=32.0), rows=4, length=1024)
    assert again.bytes < plain.bytes / 2
    assert weight_bytes(packed) < weight_bytes(_setting("qwen3-8b", lora())) / 2
