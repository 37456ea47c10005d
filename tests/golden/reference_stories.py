#!/usr/bin/env python3
"""An independent float64 forward pass of stories260K, written from the formulas, and round-to-nearest on the block grid.

Purpose: golden numbers for the forward pass, the perplexity definition, greedy generation and the grid on a real model.
Made with: Python 3.11, numpy 2.4.6, tokenizers 0.23.3; with --check also torch 2.15.0 and transformers 5.23.0.
Command:   HF_HUB_OFFLINE=1 python tests/golden/reference_stories.py --shared ../shared [--check]     (rewrites stories260k.json)

    h = E[token]
    per layer:  q, k, v = heads(Wq n1(h)), heads(Wk n1(h)), heads(Wv n1(h));  q, k turned by the rotary angle of their position
                h += Wo concat(softmax(q k' / sqrt(d), j <= i) v)             query heads 2g, 2g+1 share key/value head g
                h += Wdown (silu(Wgate n2(h)) * Wup n2(h))
    logits = E n(h),   n(h) = w * h / sqrt(mean(h^2) + eps)
    rotary: pair (x_i, x_{i + d/2}) turned by position * theta^(-2i/d)

    window loss = mean of the T-1 next-token losses; loss of a file = mean over its windows (tokenized once, BOS at the start only,
    consecutive windows, tail dropped); perplexity = exp of it; KL = mean over all T positions of sum_v p (log p - log q).

    grid: per row and group of consecutive inputs, scale = fp16(2 max|w| / (2^b - 1)), levels scale * (-2^(b-1) .. 2^(b-1) - 1);
    nearest level, a tie goes to the lower one; beyond the range both neighbours are the end level (counted as clipped).
    delta2 = mean over the weight matrices of 12 mean((rtn - w)^2).
"""
import argparse
import json
import pathlib

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).resolve().parent


class Model:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = {k: v.astype(np.float64) for k, v in load_file(folder / "model.safetensors").items()}
        c = self.config
        self.heads, self.kv = c["num_attention_heads"], c["num_key_value_heads"]
        self.d = c["hidden_size"] // self.heads
        self.tables = self.rotary_tables(c["max_position_embeddings"])

    def rotary_tables(self, length):
        freq = self.config["rope_theta"] ** (-np.arange(0, self.d, 2) / self.d)
        angle = np.arange(length)[:, None] * freq
        return np.cos(angle), np.sin(angle)                        # [T, d/2]

    def linear(self):
        return [k for k in self.tensors if k.endswith("_proj.weight")]

    def norm(self, h, name):
        return self.tensors[name] * h / np.sqrt(np.mean(h * h, -1, keepdims=True) + self.config["rms_norm_eps"])

    def turn(self, x):                                              # [B, H, T, d]
        c, s = (t[: x.shape[2]] for t in self.tables)
        a, b = np.split(x, 2, -1)
        return np.concatenate([a * c - b * s, b * c + a * s], -1)

    def attention(self, h, w, p):
        batch, length, _ = h.shape

        def split(name, n):
            return (h @ w[p + name].T).reshape(batch, length, n, self.d).transpose(0, 2, 1, 3)

        q = self.turn(split("q_proj.weight", self.heads))
        k = self.turn(split("k_proj.weight", self.kv))
        v = split("v_proj.weight", self.kv)
        out = np.empty_like(q)
        future = np.triu(np.ones((length, length), bool), 1)
        for i in range(self.heads):
            g = i * self.kv // self.heads
            s = q[:, i] @ k[:, g].transpose(0, 2, 1) / np.sqrt(self.d)
            s[:, future] = -np.inf
            s = np.exp(s - s.max(-1, keepdims=True))
            out[:, i] = (s / s.sum(-1, keepdims=True)) @ v[:, g]
        return out.transpose(0, 2, 1, 3).reshape(batch, length, -1) @ w[p + "o_proj.weight"].T

    def log_probabilities(self, tokens, weights=None):              # [B, T] -> [B, T, vocab]
        w = self.tensors if weights is None else self.tensors | weights
        h = w["model.embed_tokens.weight"][tokens]
        for l in range(self.config["num_hidden_layers"]):
            p = f"model.layers.{l}."
            h = h + self.attention(self.norm(h, p + "input_layernorm.weight"), w, p + "self_attn.")
            n = self.norm(h, p + "post_attention_layernorm.weight")
            gate, up = n @ w[p + "mlp.gate_proj.weight"].T, n @ w[p + "mlp.up_proj.weight"].T
            h = h + (gate / (1 + np.exp(-gate)) * up) @ w[p + "mlp.down_proj.weight"].T
        z = self.norm(h, "model.norm.weight") @ w["model.embed_tokens.weight"].T
        z -= z.max(-1, keepdims=True)
        return z - np.log(np.exp(z).sum(-1, keepdims=True))


def chunks(windows, size=8):
    return (windows[i:i + size] for i in range(0, len(windows), size))


def window_losses(model, windows, weights=None):
    out = []
    for t in chunks(windows):
        lp = model.log_probabilities(t, weights)
        out.append(-np.take_along_axis(lp[:, :-1], t[:, 1:, None], -1)[..., 0].mean(-1))
    return np.concatenate(out)


def compare(model, windows, weights):
    """Loss of the changed model, KL(original || changed) and the share of positions with the same first choice."""
    loss, kl, same = [], [], []
    for t in chunks(windows):
        p, q = model.log_probabilities(t), model.log_probabilities(t, weights)
        loss.append(-np.take_along_axis(q[:, :-1], t[:, 1:, None], -1)[..., 0].mean(-1))
        kl.append((np.exp(p) * (p - q)).sum(-1).mean(-1))
        same.append((p.argmax(-1) == q.argmax(-1)).mean(-1))
    return (float(np.concatenate(a).mean()) for a in (loss, kl, same))


def round_to_nearest(w, bits, group):
    group = w.shape[1] if group < 0 else group
    out, clipped, up = np.empty_like(w), 0, 0
    for s in range(0, w.shape[1], group):
        block = w[:, s:s + group]                                  # the last one may be shorter
        scale = np.float16(2 * np.abs(block).max(1, keepdims=True) / (2**bits - 1)).astype(np.float64)
        at = block / scale
        below = np.floor(at)
        lo, hi = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        level = below + (at - below > 0.5)
        clipped += int(((at < lo) | (at > hi)).sum())
        up += int(((at - below > 0.5) & (at >= lo) & (at <= hi)).sum())
        out[:, s:s + group] = np.clip(level, lo, hi) * scale
    return out, clipped, up


def rtn_results(model, windows):
    results = []
    for bits in (3, 4):
        for group in (-1, 32):
            weights, clipped, up, delta2 = {}, 0, 0, []
            for name in model.linear():
                w = model.tensors[name]
                weights[name], c, u = round_to_nearest(w, bits, group)
                clipped, up = clipped + c, up + u
                delta2.append(12 * np.mean((weights[name] - w) ** 2))
            loss, kl, same = compare(model, windows, weights)
            results.append(dict(bits=bits, group_size=group, windows=len(windows), loss=loss, perplexity=np.exp(loss), kl=kl,
                                top1_agreement=same, delta2=np.mean(delta2), clipped=clipped, rounded_up=up,
                                weights_sum=sum(float(a.sum()) for a in weights.values())))
            print(results[-1])
    return results


def greedy(model, tokenizer, count):
    tokens = [model.config["bos_token_id"]]
    margin = np.inf                                                 # smallest lead of the first choice over the second
    for _ in range(count):
        last = model.log_probabilities(np.array([tokens]))[0, -1]
        top = np.sort(last)[-2:]
        margin = min(margin, float(top[1] - top[0]))
        tokens.append(int(last.argmax()))
    return dict(tokens=tokens, text=tokenizer.decode(tokens, skip_special_tokens=True), smallest_margin=margin)


def check(folder, windows, losses):
    """Distance to Transformers in float64 (its RMSNorm and softmax stay float32)."""
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    with torch.no_grad():
        t = torch.from_numpy(windows[:8])
        lp = torch.log_softmax(model(t).logits, -1)
        theirs = -lp[:, :-1].gather(-1, t[:, 1:, None])[..., 0].mean(-1).numpy()
    print("largest relative difference to Transformers:", np.abs(theirs / losses[:8] - 1).max())


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--shared", type=pathlib.Path, required=True, help="folder that holds models/stories260K and data/tinystories")
    args.add_argument("--check", action="store_true", help="compare with Transformers too")
    args = args.parse_args()
    folder = args.shared / "models" / "stories260K"
    model, tokenizer = Model(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode((args.shared / "data/tinystories/valid.txt").read_text(encoding="utf-8")).ids
    assert ids[0] == model.config["bos_token_id"] and ids[1:].count(ids[0]) == 0
    out = dict(tokens=len(ids), first_tokens=ids[:32], sequences={})
    for length in (256, 512):
        n = len(ids) // length
        windows = np.array(ids[:n * length]).reshape(n, length)
        losses = window_losses(model, windows)
        first, every = losses[:60].mean(), losses.mean()
        out["sequences"][str(length)] = dict(windows=n, first_losses=losses[:8].tolist(), mean_first_60=first, mean_all=every,
                                             perplexity_first_60=np.exp(first), perplexity_all=np.exp(every))
        print(length, out["sequences"][str(length)])
        if args.check:
            check(folder, windows, losses)
        if length == 256:
            out["rtn"] = rtn_results(model, windows[:60])
    out["greedy"] = greedy(model, tokenizer, 100)
    print(out["greedy"])
    (HERE / "stories260k.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
