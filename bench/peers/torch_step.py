#!/usr/bin/env python3
"""Times one DiscQuant step written in PyTorch, on the CPU, for comparison with ours in the same run.

The step: teacher logits (no gradient), student logits with weights down + x * (up - down), KL(teacher || student) over all positions,
backward, gradient times lambda / delta2 and clamped, plus the linear term 1 - 2y, AdamW on x with a cosine schedule, projection onto
[0, 1]. Quantized: the weight matrices of the layers; embedding, norms and head stay. Everything fp32, random weights, 3-bit grid.

What PyTorch offers is used: fused attention (scaled_dot_product_attention, causal, grouped queries), fused AdamW, q/k/v and gate/up
in one product each, one flat x so that the updates are single calls (--separate for one x per matrix), no recomputation;
--compile adds torch.compile.

FLOP per token, T = sequence length, h = hidden size, N = quantized weights, products and causal attention only:
    forward  2 N + 2 V h + 2 T h layers         (attention: 4 T h, half of it masked)
    step     4 * 2 N + 3 * 2 V h + 4 * 2 T h layers   (two forwards; backward two products per quantized weight, one for the head)
"""
import argparse
import json
import math
import statistics
import time

import torch
import torch.nn.functional as F

SHAPES = {
    "stories260K": dict(hidden=64, inter=172, layers=5, heads=8, kv=4, vocab=512, tied=True, batch=8, length=256),
    "medium": dict(hidden=512, inter=1408, layers=8, heads=8, kv=8, vocab=8192, tied=False, batch=8, length=256),
}
BITS, LAMBDA, CLAMP, LR, WARMUP, STEPS = 3, 200.0, 1.0, 0.1, 128, 1024


def matrices(s):
    """(name, rows, columns) of the quantized weights of one layer, inputs that are shared in one matrix."""
    h, f, d = s["hidden"], s["inter"], s["hidden"] // s["heads"]
    return [("qkv", (s["heads"] + 2 * s["kv"]) * d, h), ("o", h, h), ("gate_up", 2 * f, h), ("down", h, f)]


class Model:
    def __init__(self, s):
        self.s = s
        g = torch.Generator().manual_seed(1)
        self.shapes = [(r, c) for _ in range(s["layers"]) for _, r, c in matrices(s)]
        self.weights = [torch.randn(r, c, generator=g) / math.sqrt(c) for r, c in self.shapes]
        self.embedding = torch.randn(s["vocab"], s["hidden"], generator=g)
        self.head = self.embedding if s["tied"] else torch.randn(s["vocab"], s["hidden"], generator=g) / math.sqrt(s["hidden"])
        self.norms = [torch.ones(s["hidden"]) for _ in range(2 * s["layers"] + 1)]
        d = s["hidden"] // s["heads"]
        angle = torch.arange(s["length"])[:, None] * 10000.0 ** (-torch.arange(0, d, 2) / d)
        self.cos = torch.cat([angle.cos()] * 2, -1)
        self.sin = torch.cat([-angle.sin(), angle.sin()], -1)

    def turn(self, x):                                              # [B, H, T, d]
        a, b = x.chunk(2, -1)
        return x * self.cos + torch.cat([b, a], -1) * self.sin

    def logits(self, weights, tokens):
        s = self.s
        batch, length = tokens.shape
        heads, kv, h = s["heads"], s["kv"], s["hidden"]
        x = self.embedding[tokens]
        for l in range(s["layers"]):
            qkv, o, gate_up, down = weights[4 * l:4 * l + 4]
            n = F.rms_norm(x, (h,), self.norms[2 * l], 1e-5)
            y = F.linear(n, qkv).view(batch, length, heads + 2 * kv, h // heads).transpose(1, 2)
            qk, v = self.turn(y[:, :heads + kv]), y[:, heads + kv:]
            a = F.scaled_dot_product_attention(qk[:, :heads], qk[:, heads:], v, is_causal=True, enable_gqa=heads != kv)
            x = x + F.linear(a.transpose(1, 2).reshape(batch, length, h), o)
            n = F.rms_norm(x, (h,), self.norms[2 * l + 1], 1e-5)
            gate, up = F.linear(n, gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
        return F.linear(F.rms_norm(x, (h,), self.norms[-1], 1e-5), self.head)

    def flops_per_token(self):
        s = self.s
        n = sum(r * c for r, c in self.shapes)
        return 8 * n + 6 * s["vocab"] * s["hidden"] + 8 * s["length"] * s["hidden"] * s["layers"]


def neighbours(w):
    scale = (2 * w.abs().amax(1, keepdim=True) / (2**BITS - 1)).half().float()
    k = (w / scale).floor()
    lo, hi = -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1
    return k.clamp(lo, hi) * scale, (k + 1).clamp(lo, hi) * scale


class Flat:
    """One x for all matrices."""

    def __init__(self, model, down, up):
        self.shapes = model.shapes
        self.sizes = [r * c for r, c in self.shapes]
        self.down = torch.cat([a.flatten() for a in down])
        self.step = torch.cat([a.flatten() for a in up]) - self.down
        y = torch.where(self.step > 0, (torch.cat([w.flatten() for w in model.weights]) - self.down) / self.step, torch.tensor(0.5))
        self.linear = [1 - 2 * y]
        self.x = [torch.rand_like(y).requires_grad_()]

    def weights(self):
        w = torch.addcmul(self.down, self.x[0], self.step)
        return [a.view(s) for a, s in zip(w.split(self.sizes), self.shapes)]


class Separate:
    """One x per matrix, as the reference implementation keeps them."""

    def __init__(self, model, down, up):
        self.down, self.step = down, [u - d for u, d in zip(up, down)]
        y = [torch.where(s > 0, (w - d) / s, torch.tensor(0.5)) for w, d, s in zip(model.weights, down, self.step)]
        self.linear = [1 - 2 * a for a in y]
        self.x = [torch.rand_like(a).requires_grad_() for a in y]

    def weights(self):
        return [torch.addcmul(d, x, s) for d, x, s in zip(self.down, self.x, self.step)]


def make_step(model, args):
    s = model.s
    down, up = zip(*(neighbours(w) for w in model.weights))
    rounded = [torch.where(w - d > u - w, u, d) for w, d, u in zip(model.weights, down, up)]
    delta2 = statistics.mean((12 * (r - w).square().mean()).item() for r, w in zip(rounded, model.weights))
    state = (Separate if args.separate else Flat)(model, list(down), list(up))
    optimizer = torch.optim.AdamW(state.x, lr=LR, betas=(0.9, 0.999), weight_decay=0.0, fused=args.optimizer == "fused",
                                  foreach=args.optimizer == "foreach")
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: t / WARMUP if t < WARMUP else 0.5 + 0.5 * math.cos(math.pi * (t - WARMUP) / (STEPS - WARMUP)))

    def teacher(tokens):
        return F.log_softmax(model.logits(model.weights, tokens).flatten(0, 1), -1)

    def loss(target, tokens):
        q = F.log_softmax(model.logits(state.weights(), tokens).flatten(0, 1), -1)
        return F.kl_div(q, target, reduction="batchmean", log_target=True)

    if args.compile:
        teacher, loss = torch.compile(teacher), torch.compile(loss)

    def step(tokens):
        with torch.no_grad():
            target = teacher(tokens)
        kl = loss(target, tokens)
        kl.backward()
        with torch.no_grad():
            g = [x.grad for x in state.x]
            torch._foreach_mul_(g, LAMBDA / delta2)
            torch._foreach_clamp_min_(g, -CLAMP)
            torch._foreach_clamp_max_(g, CLAMP)
            torch._foreach_add_(g, state.linear)
            optimizer.step()
            schedule.step()
            torch._foreach_clamp_min_(state.x, 0.0)
            torch._foreach_clamp_max_(state.x, 1.0)
        optimizer.zero_grad(set_to_none=True)
        return kl.item()

    return step


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--shape", choices=SHAPES, default="stories260K")
    args.add_argument("--steps", type=int, default=20, help="timed steps, after 3 untimed ones (20)")
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--optimizer", choices=["fused", "foreach"], default="fused")
    args.add_argument("--separate", action="store_true", help="one x per matrix")
    args.add_argument("--compile", action="store_true", help="torch.compile of the teacher and of the loss")
    args.add_argument("--json", action="store_true", help="print one JSON line")
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    s = SHAPES[args.shape]
    model = Model(s)
    step = make_step(model, args)
    tokens = [torch.randint(0, s["vocab"], (s["batch"], s["length"])) for _ in range(4)]
    first = step(tokens[0])
    for t in tokens[1:3]:
        step(t)
    times = []
    for k in range(args.steps):
        start = time.perf_counter()
        last = step(tokens[k % 4])
        times.append(time.perf_counter() - start)
    assert math.isfinite(first) and math.isfinite(last) and last != first
    seconds, count = statistics.median(times), s["batch"] * s["length"]
    result = dict(peer="torch", version=torch.__version__, shape=args.shape, threads=args.threads, compile=args.compile, steps=args.steps,
                  seconds_per_step=seconds, seconds_min=min(times), tokens_per_second=count / seconds,
                  gflops=model.flops_per_token() * count / seconds / 1e9, flops_per_token=model.flops_per_token(),
                  kl_first=first, kl_last=last)
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{args.shape}: {1e3 * seconds:.1f} ms a step (best {1e3 * min(times):.1f}), {count / seconds:.0f} tokens/s, "
              f"{result['gflops']:.1f} GFLOP/s with {args.threads} threads, KL {first:.3f} -> {last:.3f}")


if __name__ == "__main__":
    main()
