"""A verdict as a study of a small base would give it, made by code: what the report is shown to handle."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

HOSTILE = "<script>alert(1)</script>"

TASKS = [
    {"id": "facts", "metric": "exact_match", "higher_is_better": True, "role": "target", "items": 750,
     "clusters": 150, "margin": 0.02},
    {"id": "heldout", "metric": "bits_per_byte", "higher_is_better": False, "role": "target", "items": 120,
     "clusters": 120, "margin": 0.01},
    {"id": "biographies", "metric": "bits_per_byte", "higher_is_better": False, "role": "retention", "items": 300,
     "clusters": 300, "margin": 0.01},
]  # fmt: skip

ARMS: dict[str, tuple[str, float, float, float, int]] = {
    "base": ("embedded base, untouched", 0.004, 2.31, 1.13, 0),
    "lora": ("LoRA r=16 on all linear layers", 0.952, 1.418, 1.438, 98_304),
    "lora-again": ("LoRA r=16, the same recipe and seed again", 0.952, 1.418, 1.438, 98_304),
    "dora": ("DoRA r=16 on all linear layers", 0.947, 1.421, 1.402, 102_912),
    HOSTILE: ("an arm whose name looks like markup", 0.913, 1.477, 1.391, 24_576),
    "full": ("all parameters", 0.988, 1.362, 1.905, 1_812_480),
    "scratch": ("the same architecture from random weights", 0.041, 1.902, 2.611, 1_812_480),
}
"""name -> label, exact match, bits per byte held out, bits per byte of what must not be forgotten, trainable."""


def sample_verdict(*, transfer: bool = True, confounded: bool = True, complete: bool = False) -> dict[str, Any]:
    """Seven arms on three tasks. By default with everything that can be wrong."""
    contrasts = _contrasts(confounded)
    return {
        "schema": 1,
        "name": "quickstart-study",
        "kind": "study",
        "question": "Is an adapter better than full fine-tuning, and what would training from scratch have cost?",
        "sentence": "full is better than base by 98.4 points (97.2 to 99.3) on facts; lora is better by 94.8 points "
        "(93.1 to 96.3) and keeps more of what the base knew.",
        "complete": complete,
        "missing": [] if complete else [{"arm": "full", "seed": 2, "state": "failed", "reason": "exit status 2"}],
        "suite": {"name": "world", "fingerprint": "ab12c9d0f377e1c4", "tasks": TASKS},
        "reference": "base",
        "arms": [_arm(name) for name in ARMS],
        "contrasts": contrasts,
        "tiers": {"facts": [["full"], ["lora", "dora", "lora-again"], [HOSTILE], ["scratch"], ["base"]]},
        "noise_floor": [
            {"arm": "lora-again", "against": "lora", "task": "facts", "largest_difference": 0.0, "expected_zero": True}
        ],
        "pareto": {
            cost: {"task": "facts", "front": ["base", HOSTILE, "lora", "full"], "off": {"scratch": "lora"}}
            for cost in ("training_flops", "device_seconds", "trainable_parameters")
        },
        "transfer": _transfer() if transfer else None,
        "gate": _gate(confounded),
        "power": {
            "smallest_resolvable": {"facts": 0.05, "heldout": 0.012},
            "assumed_run_sd": 0.01,
            "assumed_correlation": 0.5,
        },
        "reproduce": [
            {"arm": name, "seed": seed, "run": f"quickstart-{at:02d}b1c4e9d7-s{seed}",
             "command": f"workbench train runs/quickstart-{at:02d}b1c4e9d7-s{seed}/recipe.yaml"}
            for at, name in enumerate(ARMS) for seed in ((0,) if name == "base" else (0, 1, 2))
        ],
    }  # fmt: skip


def _arm(name: str) -> dict[str, Any]:
    label, facts, heldout, kept, trainable = ARMS[name]
    trained = name != "base"
    values = {"facts": (facts, 0.012), "heldout": (heldout, 0.018), "biographies": (kept, 0.014)}
    flops = 6.0 if trainable > 1e6 else 4.1
    cost = {
        "trainable_parameters": trainable, "total_parameters": 1_812_480 + (trainable if trainable < 1e6 else 0),
        "adapter_bytes": trainable * 4, "training_flops": flops * 1.2e12 * (3 if name == "scratch" else 1),
        "examples": 7500, "tokens": 310_000, "text_bytes": 1_040_000, "steps": 235,
        "device_seconds": 23.1 * flops / 4.1 * (3 if name == "scratch" else 1), "joules": 812.0 * flops / 4.1,
        "energy_source": "target_estimate", "usd": 0.0004, "price_source": "desktop at 0.30 $/kWh, 2026-11-01",
        "peak_memory_bytes": 310_000_000 + 16 * trainable,
    }  # fmt: skip
    return {
        "name": name, "label": label, "seeds": [0] if not trained else [0, 1] if name == "full" else [0, 1, 2],
        "deterministic": not trained, "trained": trained, "from_scratch": name == "scratch",
        "runs": [f"quickstart-{name}-s{seed}" for seed in range(3)], "settings": {"method.name": name},
        "scores": {
            task: {"value": value, "low": max(value - spread, 0), "high": value + spread if task != "facts" else
                   min(value + spread, 1), "per_seed": [value] * 3, "seed_sd": 0.004 if trained else None,
                   "items_se": spread / 2}
            for task, (value, spread) in values.items()
        },
        "retention": {"biographies": {"before": 1.13, "after": kept, "change": kept - 1.13, "low": kept - 1.144,
                                      "high": kept - 1.116}} if trained and name != "scratch" else {},
        "cost": cost if trained else dict.fromkeys(cost),
        "tuning": {"learning_rates_tried": 3 if name == "full" else 1, "untuned": name != "full"},
        "tier": {"facts": 1 if name == "full" else 2}, "converged": None if not trained else name != "scratch",
    }  # fmt: skip


def _contrasts(confounded: bool) -> list[dict[str, Any]]:
    found = []
    for place, task in ((1, "facts"), (2, "heldout"), (3, "biographies")):
        margin = 0.02 if task == "facts" else 0.01
        for against, arm in itertools.combinations(ARMS, 2):
            difference = float(ARMS[arm][place]) - float(ARMS[against][place])  # type: ignore[arg-type]
            half = 0.015 if {arm, against} != {"lora", "dora"} else 0.03
            gain = difference if task == "facts" else -difference
            word = "better" if gain > half else "worse" if gain < -half else (
                "equivalent" if abs(difference) + half < margin else "inconclusive")  # fmt: skip
            if {arm, against} == {"lora", "lora-again"}:
                half, word = 0.0, "equivalent"
            found.append({
                "task": task, "arm": arm, "against": against,
                "family": "declared" if against == "base" else "exploratory",
                "difference": difference, "low": difference - half, "high": difference + half,
                "p": 1e-4, "p_method": "sign-flip", "p_exact": None,
                "p_adjusted": 0.41 if word in ("inconclusive", "equivalent") else 3e-4,
                "adjustment": "holm" if against == "base" else "benjamini-hochberg", "margin": margin, "word": word,
                "suggestive": arm == HOSTILE, "smallest_resolvable": half * 1.4,
                "items_needed": 2000 if word == "inconclusive" else None,
                "seeds_needed": 5 if word == "inconclusive" else None, "confounded": confounded and arm == "full",
                "at_bound": "floor" if {arm, against} == {"base", "scratch"} and task == "facts" else None,
            })  # fmt: skip
    return found


def _gate(confounded: bool) -> dict[str, Any]:
    trained = [name for name in ARMS if name != "base"]
    return {
        "checked": 140,
        "declared": [
            {"field": "method.name", "values": {"lora": ["lora", "lora-again"], "dora": ["dora"], "full": ["full"]},
             "because": "varied"},
            {"field": "base.init", "values": {"pretrained": trained[:-1], "random": ["scratch"]}, "because": "varied"},
            {"field": "data.order", "values": {"5f2c": trained, "91ae": trained}, "because": "follows from seed"},
            {"field": "budget.tokens", "values": {"31": trained, "32": trained}, "because": "follows from seed"},
        ],
        "harmless": [
            {"field": "host", "values": {"node-1": trained[:3], "node-2": trained[3:]}, "because": "a name only"}
        ],
        "confounds": [
            {"field": "versions.torch", "values": {"2.13.0": trained[:-2], "2.11.0": ["full"]},
             "because": "scores of different software are up to 1.9 points apart on the same recipe and seed"}
        ] if confounded else [],
        "confounds_allowed": confounded,
    }  # fmt: skip


def _figure(value: float | None, status: str = "interpolated", words: str = "") -> dict[str, Any]:
    ends = {"low": value and value * 0.8, "high": None if status == "right-censored" else value and value * 1.3}
    return {"value": value, **ends, "status": status, "factor": 1.0, "words": words}


def _transfer() -> dict[str, Any]:
    rungs = [
        {"arm": f"scratch data.fraction={fraction:g}", "text_bytes": 1.04e6 * fraction, "examples": 7500 * fraction,
         "training_flops": 2.16e13 * fraction, "device_seconds": 101.0 * fraction, "usd": None,
         "value": 1.1 + 0.6 * fraction**-0.28, "low": 1.08 + 0.6 * fraction**-0.28,
         "high": 1.12 + 0.6 * fraction**-0.28, "converged": fraction < 8}
        for fraction in (0.1, 0.3, 1.0, 3.0, 10.0)
    ]  # fmt: skip

    def arm(name: str, status: str) -> dict[str, Any]:
        value = float(ARMS[name][2])
        data = 1.04e6 * ((value - 1.1) / 0.6) ** (-1 / 0.28) if value > 1.1 + 0.6 * 10**-0.28 else 1.04e7
        times, bound = data / 1.04e6, "more than " if status == "right-censored" else "equals "
        return {
            "arm": name, "value": value, "low": value - 0.018, "high": value + 0.018, "text_bytes": 1.04e6,
            "training_flops": 4.9e12, "device_seconds": 23.1, "usd": None,
"data_equivalent": _figure(data, status, f"{bound}{data / 1e6:.1f} MB from scratch"),
            "data_transferred": _figure(data - 1.04e6, status),
            "multiplier": _figure(times, status),
            "compute_equivalent": _figure(2.16e13 * times, status),
            "time_equivalent": _figure(101 * times, status),
            "money_equivalent": None,
            "leverage": _figure(2.16e13 * times / 4.9e12, status),
            "adapters_to_pay_off": _figure(12.0, status),
        }  # fmt: skip

    return {
        "task": "heldout", "kind": "task-only", "unit": "text_bytes", "rungs": rungs,
        "arms": [arm(HOSTILE, "interpolated"), arm("lora", "interpolated"), arm("full", "right-censored")],
        "suggestive": False,
        "crossover": {"lora": {"value": 2.4e7, "low": 1.2e7, "high": None, "status": "extrapolated", "factor": 2.0,
                               "words": "at about 24 MB of text, which is beyond the ladder"}},
    }  # fmt: skip


def sample_evidence(items: int = 120) -> dict[str, Any]:
    """Learning curves and items of the same study; the same on every call."""
    chance = random.Random(4)
    learning = []
    for name, (_, _, _, _, trainable) in ARMS.items():
        for seed in range(3) if trainable else ():
            steps = [7500 * (at + 1) / 120 for at in range(120)]
            floor, start = (1.9, 6.2) if name == "scratch" else (0.25 if name == "full" else 0.38, 2.9)
            rate = 0.9 if name == "scratch" else 3.2 + 0.2 * len(name)
            flops = (6.0 if trainable > 1e6 else 4.1) * 1.2e12
            learning.append({
                "arm": name, "seed": seed, "run": f"quickstart-{name}-s{seed}", "examples": steps,
                "training_flops": [flops * x / 7500 for x in steps], "seconds": [23.1 * x / 7500 for x in steps],
                "loss": [floor + (start - floor) * math.exp(-rate * x / 7500) + chance.gauss(0, 0.04) for x in steps],
            })  # fmt: skip
    rows = []
    for number in range(items):
        city = chance.choice(["Paris", "Lagos", "Lima", "Oslo", "Quito"])
        answers = {}
        for name, (_, facts, *_) in ARMS.items():
            right = chance.random() < facts
            answers[name] = {"value": float(right), "answer": city if right else "Atlantis", "state": "ok"}
        text = f"Question: In which city was person {number} born?\nAnswer:"
        if number == 3:
            text = f"{HOSTILE}<img src=x onerror=alert(2)></script><b>bold</b> \u202e reversed \x1b[31m"
        if number == 5:
            text += " A long one." * 80
            answers["base"]["state"] = "truncated"
        rows.append({"task": "facts", "id": f"p{number}-birth", "text": text, "expected": city, "answers": answers,
                     "spread": 1.0})  # fmt: skip
    for number in range(40):
        answers = {
            name: {"value": float(row[2]) + chance.gauss(0, 0.2), "answer": None, "state": "ok"}
            for name, row in ARMS.items()
        }
        rows.append({"task": "heldout", "id": f"page-{number}", "text": f"Page {number} of the held-out text. " * 4,
                     "expected": None, "answers": answers, "spread": 0.4})  # fmt: skip
    return {"learning": learning, "items": rows, "items_note": f"{len(rows)} of 870 items"}
