"""llama.cpp's own tools, which write GGUF files: where they are, and calling them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from workbench import documents, files
from workbench.errors import Problem, RunError

CHECKOUT = "LLAMA_CPP"
"""Environment variable that names a checkout of llama.cpp."""
_CONVERTER, _QUANTIZER = "convert_hf_to_gguf.py", "llama-quantize"
_BUILT = ("", "build/bin", "bin")
PLAIN = ("f32", "f16", "bf16")
"""Types that quantise nothing."""
_CONVERTED = (*PLAIN, "q8_0")
"""Types that the converter writes by itself."""
_QUANTIZED = (
    "q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_0", "q4_1", "q4_k_s", "q4_k_m", "q5_0", "q5_1", "q5_k_s", "q5_k_m",
    "q6_k",
)  # fmt: skip
"""Types that take its quantiser."""


@dataclass(frozen=True)
class Tools:
    """What a type takes."""

    converter: Path
    quantizer: Path | None
    """None: the converter writes the type."""


def find(kind: str) -> Tools:
    """The tools for a type.

    Raises:
        RunError: there is no such type, or a tool is not there; says where it was looked for.
    """
    if kind not in _CONVERTED + _QUANTIZED:
        advice = documents.did_you_mean(kind, [*_CONVERTED, *_QUANTIZED])
        raise RunError(Problem("--gguf", f"{kind!r} is no type that is known here", advice))
    return Tools(_tool(_CONVERTER), None if kind in _CONVERTED else _tool(_QUANTIZER))


def _tool(name: str) -> Path:
    named = os.environ.get(CHECKOUT)
    places = [Path(named).expanduser() / part / name for part in _BUILT] if named else []
    on_path = shutil.which(name)
    found = [path for path in places if path.is_file()] + ([Path(on_path)] if on_path else [])
    if found:
        return found[0].absolute()
    looked = f"${CHECKOUT} ({named})" if named else f"${CHECKOUT} (not set)"
    build = "" if name == _CONVERTER else f", built there: cmake -B build && cmake --build build --target {_QUANTIZER}"
    raise RunError(
        Problem(
            "--gguf",
            f"llama.cpp's {name} is neither in {looked} nor on the PATH",
            f"set {CHECKOUT} to a checkout of https://github.com/ggml-org/llama.cpp{build}",
        )
    )


def convert(tools: Tools, model: Path, target: Path, kind: str, title: str) -> None:
    """Write a plain model's directory as one GGUF file.

    Raises:
        RunError: the tool refuses (such as an architecture or a tokenizer that it does not know); with its last words.
    """
    plain = target.with_suffix(".plain.gguf") if tools.quantizer else target
    written = "f32" if tools.quantizer else kind
    asked = ("--outfile", str(plain), "--model-name", title, "--outtype", written)
    _call([sys.executable, str(tools.converter), str(model), *asked])
    if tools.quantizer:
        _call([str(tools.quantizer), str(plain), str(target), kind.upper()])
        plain.unlink(missing_ok=True)
    if not target.is_file():
        raise RunError(Problem("--gguf", "llama.cpp wrote no file, and did not say why", "export without --gguf"))
    files.flush(target)


def _call(line: list[str]) -> None:
    try:
        done = subprocess.run(line, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise RunError(Problem(line[0], f"cannot be started: {error.strerror}")) from error
    if done.returncode:
        said = [text.strip() for text in (done.stderr + done.stdout).splitlines() if text.strip()]
        raise RunError(
            Problem(
                "--gguf",
                f"llama.cpp refuses it: {said[-1][:300] if said else f'status {done.returncode}'}",
                "does it know this architecture and tokenizer? export without --gguf; merged/ can be converted later",
            )
        )
