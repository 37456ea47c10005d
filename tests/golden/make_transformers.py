#!/usr/bin/env python3
"""Golden outputs of Hugging Face Transformers for small random Llama and Phi-3 models.

Purpose: an independent truth for the transformer of the core: logits, losses, gradients, per-sample gradients and
forward-mode derivatives of every configuration that the loader claims to support.

Made with: Python 3.11, numpy 2.4.6, torch 2.15.0 (CPU), transformers 5.23.0, safetensors 0.8.0.
Command:   HF_HUB_OFFLINE=1 python tests/golden/make_transformers.py          (rewrites tests/golden/models; same seeds, same files)

Each model is written as a Hugging Face folder, read back by Transformers from that folder, and run with eager attention in
float64. Transformers does RMSNorm and the softmax in float32 whatever the model's type; these two are replaced by float64 forms
(see `double_precision`), the rotary tables stay as Transformers makes them (float32). `fp32_logits_max_diff` in golden.json is
the distance to the unmodified float32 forward.

models/<name>/golden.safetensors
  tokens          I32 [B, T]
  logits          F32 [B, T, vocab]   rounded from float64
  token_loss      F64 [B, T-1]        -log p(tokens[b, t+1] | tokens[b, ..t])
  grad_norm2      F64 [P]             ||g_p||^2, g = gradient of `loss`, P = "parameters" of golden.json, in that order
  grad_dot        F64 [P]             <g_p, d>
  sample_norm2    F64 [B, L]          ||g_b,l||^2, g_b = gradient of sequence b's own mean loss (so g = mean of g_b), L = "linear"
  sample_dot      F64 [B, L]          <g_b,l, d>
  token_loss_dot  F64 [B, T-1]        derivative of token_loss along d in all parameters of "linear" at once (forward mode)
models/<name>/golden.json
  loss            mean of token_loss
  loss_per_sample mean of token_loss of each sequence
  parameters      names of all stored tensors (a tied head is part of the embedding)
  linear          names of the weight matrices inside the layers (what is quantized)
  keys_seen       how many keys each query of the first sequence attends to

The direction d restarts in every tensor: d_i = ((i * 2654435761) mod 2^32) / 2^31 - 1 for the row-major index i.
"""
import json
import pathlib
import shutil

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

OUT = pathlib.Path(__file__).resolve().parent / "models"
BATCH = 2
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def llama(**change):
    return dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=32, intermediate_size=44, num_hidden_layers=2,
                num_attention_heads=4, num_key_value_heads=4, vocab_size=72, max_position_embeddings=64, rms_norm_eps=1e-05,
                hidden_act="silu", attention_bias=False, mlp_bias=False, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2) | change


def phi3(**change):
    return dict(architectures=["Phi3ForCausalLM"], model_type="phi3", hidden_size=32, intermediate_size=44, num_hidden_layers=2,
                num_attention_heads=4, num_key_value_heads=4, vocab_size=72, max_position_embeddings=64,
                original_max_position_embeddings=64, rms_norm_eps=1e-05, hidden_act="silu", attention_bias=False,
                tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=2, resid_pdrop=0.0, embd_pdrop=0.0,
                attention_dropout=0.0, sliding_window=None) | change


LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32, rope_type="llama3")
SHORT, LONG = [1.0, 1.1, 1.25, 1.5], [1.0, 2.0, 3.5, 4.0]

# name: (config.json, sequence length, number of files)
MODELS = {
    # One query head per key/value head, untied, keys of Transformers 5.
    "llama_mha": (llama(dtype="float32", rope_parameters=dict(rope_theta=10000.0, rope_type="default")), 32, 1),
    # Two query heads per key/value head, tied, keys of Transformers 4, rope_theta not its default.
    "llama_gqa2_tied": (llama(num_key_value_heads=2, tie_word_embeddings=True, torch_dtype="float32", rope_theta=5000.0,
                              rope_scaling=None), 32, 1),
    # Eight query heads on one key/value head; heads * head_dim is not the hidden size; stored in F16.
    "llama_mqa8_f16": (llama(hidden_size=40, num_attention_heads=8, num_key_value_heads=1, head_dim=8, torch_dtype="float16",
                             rope_theta=10000.0), 28, 1),
    # llama3 scaling, head_dim 16: wavelengths 6.3 (kept), 19.9 (between), 63 and longer (divided by 8); longer than the original 32.
    "llama_llama3": (llama(num_attention_heads=2, num_key_value_heads=1, head_dim=16, torch_dtype="float32", rope_theta=10000.0,
                           rope_scaling=LLAMA3, max_position_embeddings=256, eos_token_id=[2, 3]), 44, 1),
    "llama_llama3_v5_tied_bf16": (llama(num_attention_heads=4, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True,
                                        dtype="bfloat16", rope_parameters=LLAMA3 | dict(rope_theta=500.0),
                                        max_position_embeddings=256), 44, 1),
    # Linear position interpolation with the old key "type".
    "llama_linear_bf16": (llama(num_key_value_heads=2, torch_dtype="bfloat16", rope_theta=10000.0,
                                rope_scaling=dict(type="linear", factor=4.0)), 32, 1),
    # Explicit head_dim, odd sizes, three files with an index.
    "llama_headdim_sharded": (llama(hidden_size=36, intermediate_size=50, num_attention_heads=3, num_key_value_heads=1, head_dim=12,
                                    vocab_size=77, torch_dtype="float16", rope_theta=10000.0), 24, 3),
    # Fused projections; the window is shorter than the sequence. Transformers 5 with eager attention: query i sees key j iff
    # j <= i and j > i - sliding_window, that is min(i + 1, sliding_window) keys, its own included.
    "phi3_window": (phi3(sliding_window=11, torch_dtype="float32", rope_theta=10000.0, rope_scaling=None), 40, 1),
    "phi3_gqa_bf16": (phi3(num_key_value_heads=2, dtype="bfloat16", sliding_window=64,
                           rope_parameters=dict(rope_theta=10000.0, rope_type="default")), 32, 1),
    # longrope (old key "type", and "rope_type"): short factors up to the original length, long ones for every position of a longer
    # sequence; cos and sin are multiplied by sqrt(1 + ln(max/orig) / ln(orig)), or by attention_factor where it is given.
    "phi3_longrope_short": (phi3(original_max_position_embeddings=32, max_position_embeddings=128, sliding_window=128,
                                 torch_dtype="bfloat16", rope_theta=10000.0,
                                 rope_scaling=dict(type="longrope", short_factor=SHORT, long_factor=LONG)), 32, 1),
    "phi3_longrope_long": (phi3(original_max_position_embeddings=32, max_position_embeddings=128, sliding_window=128, dtype="bfloat16",
                                rope_parameters=dict(rope_theta=10000.0, rope_type="longrope", short_factor=SHORT, long_factor=LONG)),
                           33, 1),
    "phi3_longrope_f16": (phi3(original_max_position_embeddings=16, max_position_embeddings=64, num_key_value_heads=1,
                               torch_dtype="float16", rope_theta=1000.0,
                               rope_scaling=dict(rope_type="longrope", short_factor=SHORT, long_factor=LONG, attention_factor=1.3)),
                          40, 1),
}


def random_weights(c, rng):
    """Weights that give logits of order 1 to 5 and norms away from one."""
    h, f, v = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    hd = c.get("head_dim", h // heads)

    def matrix(rows, cols, gain=1.0):
        return rng.standard_normal((rows, cols)) * gain / np.sqrt(cols)

    def norm():
        return rng.uniform(0.6, 1.4, h)

    tied = c["tie_word_embeddings"]
    w = {"model.embed_tokens.weight": rng.standard_normal((v, h)) * (0.3 if tied else 0.8)}
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        w[p + "input_layernorm.weight"] = norm()
        w[p + "post_attention_layernorm.weight"] = norm()
        if c["model_type"] == "phi3":
            w[p + "self_attn.qkv_proj.weight"] = matrix((heads + 2 * kv) * hd, h, 1.3)
            w[p + "mlp.gate_up_proj.weight"] = matrix(2 * f, h, 1.3)
        else:
            w[p + "self_attn.q_proj.weight"] = matrix(heads * hd, h, 1.3)
            w[p + "self_attn.k_proj.weight"] = matrix(kv * hd, h, 1.3)
            w[p + "self_attn.v_proj.weight"] = matrix(kv * hd, h, 1.3)
            w[p + "mlp.gate_proj.weight"] = matrix(f, h, 1.3)
            w[p + "mlp.up_proj.weight"] = matrix(f, h, 1.3)
        w[p + "self_attn.o_proj.weight"] = matrix(h, heads * hd)
        w[p + "mlp.down_proj.weight"] = matrix(h, f)
    w["model.norm.weight"] = norm()
    if not tied:
        w["lm_head.weight"] = matrix(v, h, 1.5)
    dtype = DTYPES[c.get("dtype") or c.get("torch_dtype")]
    return {k: torch.from_numpy(a).to(dtype).contiguous() for k, a in w.items()}


def write_model(folder, config, weights, files):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if files == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, where = sorted(weights), {}
    for k in range(files):
        file = f"model-{k + 1:05d}-of-{files:05d}.safetensors"
        part = names[k::files]
        save_file({n: weights[n] for n in part}, folder / file, metadata={"format": "pt"})
        where |= {n: file for n in part}
    total = sum(t.numel() * t.element_size() for t in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def double_precision(model, length):
    """float64 throughout, also where Transformers insists on float32: RMSNorm and softmax. Returns the replaced softmax."""
    model.double()
    rotary = model.model.rotary_emb
    tables = rotary(torch.zeros(1, dtype=torch.float64), torch.arange(length)[None])
    rotary.forward = lambda x, position_ids: tables              # longrope writes to its buffers, which jvp forbids
    for m in model.modules():
        if type(m).__name__.endswith("RMSNorm"):
            m.forward = lambda x, m=m: m.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.variance_epsilon))
    softmax = torch.nn.functional.softmax

    def wide(x, dim=None, dtype=None, **rest):
        return softmax(x, dim=dim, dtype=None if x.dtype == torch.float64 else dtype)

    torch.nn.functional.softmax = wide
    return softmax


def direction(shape):
    i = np.arange(int(np.prod(shape)), dtype=np.uint64)
    return torch.from_numpy(((i * np.uint64(2654435761)) % np.uint64(2**32)).astype(np.float64) / 2.0**31 - 1.0).reshape(shape)


def token_loss(logits, tokens):
    return -torch.log_softmax(logits[:, :-1], -1).gather(-1, tokens[:, 1:, None]).squeeze(-1)


def golden(folder, config, length, rng):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokens = torch.from_numpy(rng.integers(0, config["vocab_size"], (BATCH, length)))
    with torch.no_grad():
        plain = model(tokens, use_cache=False, output_attentions=True)
    keys_seen = (plain.attentions[0][0, 0] > 0).sum(-1).tolist()
    softmax = double_precision(model, length)
    try:
        return measure(model, config, tokens, plain.logits, keys_seen)
    finally:
        torch.nn.functional.softmax = softmax


def measure(model, config, tokens, plain_logits, keys_seen):
    params = dict(model.named_parameters())                      # a tied head is listed once, as the embedding
    linear = [n for n in params if n.endswith("_proj.weight")]
    d = {n: direction(p.shape) for n, p in params.items()}

    logits = model(tokens, use_cache=False).logits
    losses = token_loss(logits, tokens)
    loss = losses.mean()
    grads = dict(zip(params, torch.autograd.grad(loss, list(params.values()), retain_graph=True)))
    norm2, dot = [], []
    for b in range(BATCH):
        g = torch.autograd.grad(losses[b].mean(), [params[n] for n in linear], retain_graph=True)
        norm2.append(torch.stack([x.pow(2).sum() for x in g]))
        dot.append(torch.stack([(x * d[n]).sum() for x, n in zip(g, linear)]))

    def along(moved):
        return token_loss(torch.func.functional_call(model, moved, (tokens,), {"use_cache": False}).logits, tokens)

    at = {n: params[n].detach() for n in linear}
    _, forward = torch.func.jvp(along, (at,), ({n: d[n] for n in linear},))

    # The three derivatives must agree with one another and with a central difference.
    reverse = sum((grads[n] * d[n]).sum() for n in linear)
    eps = 1e-6
    with torch.no_grad():
        plus, minus = (along({n: at[n] + s * eps * d[n] for n in linear}).mean() for s in (1, -1))
    slope = (plus - minus) / (2 * eps)
    assert abs(forward.mean() - reverse) < 1e-9 * max(1, abs(reverse)), (forward.mean(), reverse)
    assert abs(slope - reverse) < 1e-6 * max(1, abs(reverse)), (slope, reverse)
    assert torch.allclose(torch.stack(dot).mean(0), torch.stack([(grads[n] * d[n]).sum() for n in linear]))

    tensors = dict(tokens=tokens.to(torch.int32), logits=logits.detach().float(), token_loss=losses.detach(),
                   grad_norm2=torch.stack([g.pow(2).sum() for g in grads.values()]),
                   grad_dot=torch.stack([(g * d[n]).sum() for n, g in grads.items()]),
                   sample_norm2=torch.stack(norm2), sample_dot=torch.stack(dot), token_loss_dot=forward.detach())
    about = dict(transformers=transformers.__version__, torch=torch.__version__.split("+")[0], batch=BATCH, length=tokens.shape[1],
                 loss=loss.item(), loss_per_sample=losses.mean(1).tolist(), max_abs_logit=logits.abs().max().item(),
                 fp32_logits_max_diff=(plain_logits.double() - logits).abs().max().item(), keys_seen=keys_seen,
                 parameters=list(grads), linear=linear)
    return {k: v.contiguous() for k, v in tensors.items()}, about


def main():
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    for k, (name, (config, length, files)) in enumerate(MODELS.items()):
        rng = np.random.default_rng(1000 + k)
        folder = OUT / name
        write_model(folder, config, random_weights(config, rng), files)
        tensors, about = golden(folder, config, length, rng)
        save_file(tensors, folder / "golden.safetensors")
        (folder / "golden.json").write_text(json.dumps(about, indent=1) + "\n")
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(f"{name:28s} loss {about['loss']:.4f}  max|logit| {about['max_abs_logit']:.2f}  fp32 diff {about['fp32_logits_max_diff']:.1e}"
              f"  keys of the last query {about['keys_seen'][-1]} of {length}  {size} bytes")


if __name__ == "__main__":
    main()
