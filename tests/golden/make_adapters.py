#!/usr/bin/env python3
"""Golden LoRA adapters of PEFT on small models of tests/golden/models, with the logits of model and adapter together.

Purpose: an independent truth for what an adapter folder means: names, the factor alpha / r (and alpha / sqrt r), fused matrices.

Made with: Python 3.11, peft 0.21.2, transformers 5.23.0, torch 2.15.0 (CPU), safetensors 0.8.0.
Command:   HF_HUB_OFFLINE=1 python tests/golden/make_adapters.py          (rewrites tests/golden/adapters; same seeds, same files)

adapters/<name>/adapter_config.json, adapter_model.safetensors   as PEFT saves them; A and B are drawn at random, both not zero
adapters/<name>/golden.safetensors                               tokens I32 [B, T], logits F32 [B, T, vocab] of PEFT's model
                                                                 base F32 [B, T, vocab]: without adapter
                                                                 merged F32 [B, T, vocab]: of PEFT's merge_and_unload
"""
import json
import pathlib
import shutil

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parent

# name: (folder of tests/golden/models, LoraConfig)
ADAPTERS = {
    "llama_some": ("llama_gqa2_tied", dict(r=3, lora_alpha=5, target_modules=["q_proj", "v_proj", "down_proj"])),
    "llama_all": ("llama_headdim_sharded", dict(r=4, lora_alpha=8, target_modules="all-linear")),
    "llama_one_layer": ("llama_mha", dict(r=2, lora_alpha=2, target_modules=["o_proj", "up_proj"], layers_to_transform=[1])),
    "phi3_fused": ("phi3_window", dict(r=4, lora_alpha=6, use_rslora=True, target_modules=["qkv_proj", "o_proj", "gate_up_proj", "down_proj"])),
}


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens, use_cache=False).logits.float().contiguous()


def make(name, folder, config):
    source, out = ROOT / "models" / folder, ROOT / "adapters" / name
    torch.manual_seed(len(name))
    tokens = load_file(source / "golden.safetensors")["tokens"].long()
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager").eval()
    base = logits(model, tokens)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config)).eval()
    for key, value in model.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(value, std=0.5 / value.shape[1] ** 0.5)
    adapted = logits(model, tokens)
    shutil.rmtree(out, ignore_errors=True)
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    config_path = out / "adapter_config.json"
    about = json.loads(config_path.read_text()) | dict(base_model_name_or_path=folder)
    about["target_modules"] = sorted(about["target_modules"])
    config_path.write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
    merged = logits(model.merge_and_unload(), tokens)
    save_file(dict(tokens=tokens.int(), logits=adapted, base=base, merged=merged), out / "golden.safetensors")
    for path in out.iterdir():
        path.chmod(0o644)
    print(f"{name}: moves logits by {(adapted - base).abs().max():.3g}, merging by {(adapted - merged).abs().max():.2g}")


if __name__ == "__main__":
    for name, (folder, config) in ADAPTERS.items():
        make(name, folder, config)
