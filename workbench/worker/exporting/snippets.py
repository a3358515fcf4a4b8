"""How a card says that its model is loaded: Python that runs as it stands, beside the files (tests run it)."""

from __future__ import annotations

import json
from typing import Any

from workbench.recipe.schema import Qlora
from workbench.worker.exporting.facts import Facts

_DTYPES = {"fp32": "torch.float32", "fp16": "torch.float16", "bf16": "torch.bfloat16"}


def text(facts: Facts, folder: str) -> str:
    """Instructions for one of the export's folders."""
    if folder == "gguf":
        return "```bash\nollama create NAME -f Modelfile     # or: llama-cli -m FILE.gguf -p PROMPT\n```"
    if folder == "adapter" and facts.base_is_random:
        return (
            "The base's weights are random, drawn by workbench from the seed: no other program has them. Take the "
            "merged model."
        )
    code = _adapter(facts) if folder == "adapter" else _plain(facts)
    return f"In Python, in the folder of this file:\n\n```python\n{code}```"


def _plain(facts: Facts) -> str:
    return (
        "import torch\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained(".", dtype={_DTYPES[facts.resolved.dtype]}{_trust(facts)})\n'
        f"{_asked(facts)}"
    )


def _adapter(facts: Facts) -> str:
    method, dtype = facts.resolved.recipe.method, _DTYPES[facts.resolved.dtype]
    revision = f', revision="{facts.resolved.base.revision}"' if facts.is_hub else ""
    bits, library = "", ""
    if isinstance(method, Qlora):
        library = ", BitsAndBytesConfig"
        bits = (
            "four_bit = BitsAndBytesConfig(\n"
            f'    load_in_4bit=True, bnb_4bit_quant_type="{method.quantization}",\n'
            f"    bnb_4bit_use_double_quant={method.double_quantization}, bnb_4bit_compute_dtype={dtype},\n)\n"
        )
    option = ', quantization_config=four_bit, device_map="auto"' if bits else ""
    base, embedded = f'"{facts.base_name}"', ""
    if facts.base_is_embedded:
        base, embedded = "resources.embedded_base()", "from workbench import resources\n"
    note = "" if facts.is_hub or embedded else "  # where you keep the base; the sha256 of its files stand below"
    return (
        "import torch\nfrom peft import PeftModel\n"
        f"from transformers import AutoModelForCausalLM, AutoTokenizer{library}\n{embedded}\n"
        f"base = {base}{note}\n{bits}"
        f"model = AutoModelForCausalLM.from_pretrained(base{revision}, dtype={dtype}{option}{_trust(facts)})\n"
        f'model = PeftModel.from_pretrained(model, ".").eval()\n{_asked(facts)}'
    )


def _trust(facts: Facts) -> str:
    return ", trust_remote_code=True" if facts.resolved.recipe.base.trust_remote_code else ""


def _asked(facts: Facts) -> str:
    data, text = facts.resolved.recipe.data, "Once upon a time"
    if data.template == "plain":
        prompt = f'asked = tokenizer({_literal(facts.opening_text + text)}, return_tensors="pt")  # no chat template\n'
    else:
        system = [{"role": "system", "content": data.system}] if data.system else []
        prompt = (
            f"messages = {_literal([*system, {'role': 'user', 'content': text}])}\n"
            "asked = tokenizer.apply_chat_template(\n"
            '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True\n)\n'
        )
    return (
        f'tokenizer = AutoTokenizer.from_pretrained(".")\n{prompt}'
        "made = model.generate(\n"
        '    input_ids=asked["input_ids"], attention_mask=asked["attention_mask"], max_new_tokens=32\n)\n'
        "print(tokenizer.decode(made[0]))\n"
    )


def _literal(value: Any) -> str:
    """Texts, and lists and dictionaries of them, are written in Python as in JSON."""
    return json.dumps(value, ensure_ascii=False)
