from small_recipes import *
from conftest import save_base
import pytest
@pytest.mark.parametrize("family",["qwen3_moe","deepseek_v3","llama"])
def test_it(workbench, tmp_path, small_tokenizer, family):
  base = save_base(tmp_path / family, family, small_tokenizer)
  r = write_recipe(tmp_path, base, preferences(), "preference", objective="dpo")
  a=[]
  for s in [("target.micro_batch_tokens=8192",),("target.micro_batch_tokens=64",)]:
    a.append(losses(train(workbench, r, tmp_path/s[0], *s,"training.learning_rate=1e-3")))
  (tmp_path/"datasets/rows.yaml").unlink()
  r = write_recipe(tmp_path, base, questions())
  for s in [("target.micro_batch_tokens=8192",),("target.micro_batch_tokens=64",),("target.layout=flattened",),("method={name: qlora}",), ("method=full","training.precision=bf16")]:
    o=call(workbench, r, tmp_path/("x"+s[0]), *s, "training.learning_rate=1e-3")
    a.append(losses(run_of(o,tmp_path)) if not o.status else o.output[-600:])
  print(*a,sep="\n")
  assert 0
