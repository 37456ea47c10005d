#!/usr/bin/env python3
"""Reads the exports of a run with the field's own software and compares every weight with RUN/model.

    python3 -m venv venv
    venv/bin/pip install torch safetensors transformers numpy gguf==0.19.0 compressed-tensors==0.20.0 xllamacpp==2026.10.11549
    venv/bin/pip install --no-deps auto-gptq==0.7.1
    venv/bin/pip download --no-deps gptqmodel==7.7.0 && tar xzf gptqmodel-7.7.0.tar.gz
    venv/bin/pip install accelerate device-smi protobuf pillow requests pypcre tokenicer logbar datasets torchao defuser dill
    discquant-data export RUN --to hf,gptq,compressed-tensors,gguf
    PYTHONPATH=gptqmodel-7.7.0 venv/bin/python bench/peers/read_exports.py RUN [--text FILE --seq-len 128 --windows 4]

What is there of RUN/export.gguf, RUN/export-gptq and RUN/export-compressed-tensors is read by
  gguf                gguf.quants.dequantize, and its reader of metadata
  auto-gptq           the torch branch of its QuantLinear ("cuda-old"), which is what runs without a GPU; first version only
  gptqmodel           its TorchLinear, both versions; unpacked beside us, as its installation wants a GPU's compiler
  compressed-tensors  its PackedQuantizationCompressor with the scheme that its own parser makes of config.json
and must equal RUN/model bit for bit in float32 (both zeros are one value). With --text the file goes through llama.cpp's
server (xllamacpp): its perplexity beside the one Transformers gives to RUN/model and to the GGUF file on the same tokens, and
how many of the text's lines have as many tokens there as by tokenizer.json. One line of JSON for each; exit status 1 when
weights differ, or the perplexity by more than 1 %.
"""
import argparse
import importlib.util
import json
import math
import os
import sys

import numpy as np
import torch
from safetensors import safe_open

FAILED = []


def say(**what):
    print(json.dumps(what), flush=True)


def tensors_of(folder):
    names = {}
    files = [f for f in sorted(os.listdir(folder)) if f.endswith(".safetensors")]
    for name in files:
        file = safe_open(os.path.join(folder, name), framework="pt")
        for key in file.keys():
            names[key] = file
    return names


def compare(reader, name, got, want):
    got, want = torch.as_tensor(got).float(), want.float()
    if got.shape != want.shape or not torch.equal(got, want):
        FAILED.append(f"{reader}: {name}")
        return 0
    return got.numel()


# ---- GGUF

NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.qkv_proj": "attn_qkv", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up",
}


def gguf_name(name):
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": "output.weight"}
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def read_gguf(run, model, config):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(os.path.join(run, "export.gguf"))
    tensors = {t.name: t for t in reader.tensors}
    values, kinds = 0, {}
    for name, file in model.items():
        want = file.get_tensor(name)
        tensor = tensors[gguf_name(name)]
        got = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)).reshape(want.shape)
        kinds[tensor.tensor_type.name] = kinds.get(tensor.tensor_type.name, 0) + 1
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
        if heads:  # llama.cpp: (head, j, half); Transformers: (head, half, j)
            got = got.reshape(config[heads], -1, 2, got.shape[-1]).swapaxes(1, 2).reshape(want.shape)
        values += compare("gguf", name, got, want)
    fields = {k: f.contents() for k, f in reader.fields.items() if not k.startswith(("GGUF.", "tokenizer.ggml.tok", "tokenizer.ggml.sc", "tokenizer.ggml.mer"))}
    say(reader="gguf", tensors=len(model), values=values, types=kinds, fields=fields)


# ---- GPTQ

def auto_gptq_layer(config):
    spec = importlib.util.find_spec("auto_gptq")  # its __init__ wants packages that reading does not need
    path = os.path.join(spec.submodule_search_locations[0], "nn_modules", "qlinear", "qlinear_cuda_old.py")
    spec = importlib.util.spec_from_file_location("qlinear_cuda_old", path)
    qlinear = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(qlinear)

    def weight(state, ins, outs):
        layer = qlinear.QuantLinear(config["bits"], config["group_size"], ins, outs, False, weight_dtype=torch.float32)
        layer.load_state_dict(state)
        return layer(torch.eye(ins)).T

    return weight if config["checkpoint_format"] == "gptq" else None


def gptqmodel_layer(config):
    if not importlib.util.find_spec("gptqmodel"):
        return None
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    def weight(state, ins, outs):
        layer = TorchLinear(bits=config["bits"], group_size=config["group_size"], sym=config["sym"], desc_act=config["desc_act"],
                            in_features=ins, out_features=outs)
        layer.scales = torch.empty_like(layer.scales, dtype=torch.float32)
        layer.load_state_dict(state, strict=True)
        if config["checkpoint_format"] == "gptq":
            convert_gptq_v1_to_v2_format_module(layer, config["bits"], torch.int32)
        layer.post_init()
        return layer.dequantize_weight().T

    return weight


def read_gptq(run, model, _):
    folder = os.path.join(run, "export-gptq")
    config = json.load(open(os.path.join(folder, "quantize_config.json")))
    export = tensors_of(folder)
    for reader, layer in (("auto-gptq", auto_gptq_layer(config)), ("gptqmodel", gptqmodel_layer(config))):
        if not layer:
            say(reader=reader, skipped=config["checkpoint_format"] + ": not installed, or reads the first version only")
            continue
        values, coded = 0, 0
        for name, file in model.items():
            want, base = file.get_tensor(name), name.removesuffix(".weight")
            if base + ".qweight" not in export:
                values += compare(reader, name, export[name].get_tensor(name), want)
                continue
            outs, ins = want.shape
            state = {k: export[f"{base}.{k}"].get_tensor(f"{base}.{k}") for k in ("qweight", "qzeros", "scales", "g_idx")}
            values += compare(reader, name, layer({**state, "scales": state["scales"].float()}, ins, outs), want)
            coded += 1
        say(reader=reader, tensors=len(model), coded=coded, values=values, bits=config["bits"], format=config["checkpoint_format"])


# ---- compressed-tensors

def read_packed(run, model, _):
    from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationConfig

    folder = os.path.join(run, "export-compressed-tensors")
    config = json.load(open(os.path.join(folder, "config.json")))["quantization_config"]
    scheme = list(QuantizationConfig.model_validate(config).config_groups.values())[0]
    export = tensors_of(folder)
    values, coded = 0, 0
    for name, file in model.items():
        want, base = file.get_tensor(name), name.removesuffix(".weight")
        if base + ".weight_packed" not in export:
            values += compare("compressed-tensors", name, export[name].get_tensor(name), want)
            continue
        keys = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point")
        state = {k: export[f"{base}.{k}"].get_tensor(f"{base}.{k}") for k in keys if f"{base}.{k}" in export}
        values += compare("compressed-tensors", name, PackedQuantizationCompressor.decompress(state, scheme)["weight"], want)
        coded += 1
    say(reader="compressed-tensors", tensors=len(model), coded=coded, values=values, bits=scheme.weights.num_bits)


# ---- running it

def windows_of(run, args):
    """Token windows as discquant cuts them: texts with BOS, one after the other."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.path.join(run, "model", "tokenizer.json"))
    text = open(args.text, encoding="utf-8").read()
    texts = [json.loads(line)["text"] for line in text.splitlines()] if args.text.endswith(".jsonl") else [text]
    ids = []
    for one in texts:
        ids += tokenizer.encode(one).ids
        if len(ids) >= args.seq_len * args.windows:
            break
    n = min(args.windows, len(ids) // args.seq_len)
    lines = [line for one in texts[:200] for line in one.splitlines() if line.strip()][:200]
    return lines, tokenizer, [ids[i * args.seq_len : (i + 1) * args.seq_len] for i in range(n)]


def torch_losses(model, windows):
    with torch.no_grad():
        tokens = torch.tensor(windows)
        logits = model(tokens).logits.double()
        return torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1)).item()


def llama_losses(server, windows, vocab):
    total, n = 0.0, 0
    for window in windows:
        for k in range(1, len(window)):
            answer = server.handle_completions({"prompt": window[:k], "max_tokens": 1, "logprobs": vocab, "cache_prompt": True,
                                                "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 1})
            tops = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            total -= {t["id"]: t["logprob"] for t in tops}[window[k]]
            n += 1
    return total / n


def run_gguf(run, args, config):
    import xllamacpp
    from transformers import AutoModelForCausalLM

    path = os.path.join(run, "export.gguf")
    lines, tokenizer, windows = windows_of(run, args)
    ours = AutoModelForCausalLM.from_pretrained(os.path.join(run, "model"), dtype=torch.float32)
    result = {"transformers": math.exp(torch_losses(ours, windows))}
    try:
        theirs = AutoModelForCausalLM.from_pretrained(run, gguf_file="export.gguf", dtype=torch.float32)
        result["transformers_gguf"] = math.exp(torch_losses(theirs, windows))
    except Exception as error:  # versions differ in what they read
        result["transformers_gguf"] = f"{type(error).__name__}: {error}"[:200]
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.warmup = path, max(args.seq_len + 8, 64), 1, False
    params.cpuparams.n_threads = 1
    params.no_extra_bufts = True
    server = xllamacpp.Server(params)
    result["llama_cpp"] = math.exp(llama_losses(server, windows, config["vocab_size"]))
    same = 0
    for line in lines:
        answer = server.handle_completions({"prompt": line, "max_tokens": 1, "cache_prompt": False})
        same += answer["usage"]["prompt_tokens"] == len(tokenizer.encode(line).ids)
    ratio = result["llama_cpp"] / result["transformers"]
    say(reader="llama.cpp", windows=len(windows), seq_len=args.seq_len, perplexity=result, ratio=ratio, lines=len(lines),
        lines_of_same_length=same)
    if not 0.99 < ratio < 1.01:
        FAILED.append("llama.cpp: perplexity")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--text")
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--windows", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = tensors_of(os.path.join(args.run, "model"))
    config = json.load(open(os.path.join(args.run, "model", "config.json")))
    for name, read in (("export.gguf", read_gguf), ("export-gptq", read_gptq), ("export-compressed-tensors", read_packed)):
        if os.path.exists(os.path.join(args.run, name)):
            read(args.run, model, config)
    if args.text:
        run_gguf(args.run, args, config)
    for what in FAILED:
        print("differs:", what, file=sys.stderr)
    sys.exit(1 if FAILED else 0)


main()
