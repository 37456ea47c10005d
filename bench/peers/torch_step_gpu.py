#!/usr/bin/env python3
"""Times one DiscQuant step in PyTorch and Transformers at the shape of Phi-3-mini, on one GPU, for comparison with
`discquant-bench speed --device cuda step` on the same card. Prints one JSON line.

The step: teacher (no gradient) and student, the same Transformers model with the weights w and w^x = down + x (up - down); KL(teacher ||
student) over all positions; backward; gradient times lambda / delta2, clamped, plus the linear term 1 - 2y; AdamW on x; projection
onto [0, 1]. Quantized: the weight matrices of the layers; embedding, norms and head stay. Random weights, 3-bit grid, bf16 throughout
(--dtype), moments in the dtype of x.

What saves time or memory in PyTorch is used: scaled_dot_product_attention (on a GPU its flash kernel alone), gradient checkpointing per
layer, fused AdamW, the head and the KL in chunks of rows that are recomputed on the way back; --compile adds torch.compile of the
layers. down and up - down are kept, not computed anew in each pass.

FLOP counted: 10 per quantized weight and token (two passes forward, one again on the way back, two products there).
"""
import argparse
import contextlib
import json
import math
import statistics
import time

import torch
import torch.nn.functional as F
import transformers
from torch.utils.checkpoint import checkpoint
from transformers import Phi3Config, Phi3ForCausalLM

SHAPES = {
    "phi3-mini": dict(hidden_size=3072, intermediate_size=8192, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32,
                      vocab_size=32064, max_position_embeddings=4096),
    "tiny": dict(hidden_size=96, intermediate_size=256, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3,
                 vocab_size=512, max_position_embeddings=256),
}
BATCHES = {"phi3-mini": (8, 2048), "tiny": (2, 64)}
BITS, LAMBDA, CLAMP, LR = 3, 200.0, 1.0, 0.1


class RoundedLinear(torch.nn.Module):
    """y = W x with W = w (teacher) or down + x step (student)."""

    student = False

    def __init__(self, weight):
        super().__init__()
        w = weight.detach()
        scale = (2 * w.abs().amax(1, keepdim=True).float() / (2**BITS - 1)).half().float()
        k = (w.float() / scale).floor()
        low, high = -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1
        down, up = k.clamp(low, high) * scale, (k + 1).clamp(low, high) * scale
        nearest = torch.where(w - down > up - w, up, down)
        self.delta2 = (12 * (nearest - w).square().mean()).item()
        self.register_buffer("w", w)
        self.register_buffer("down", down.to(w.dtype))
        self.register_buffer("step", (up - down).to(w.dtype))
        self.x = torch.nn.Parameter(torch.rand_like(w))

    def forward(self, inputs):
        weight = torch.addcmul(self.down, self.x, self.step) if RoundedLinear.student else self.w
        return F.linear(inputs, weight)

    def pull(self):
        y = torch.where(self.step > 0, (self.w - self.down) / self.step, 0.5)
        return 1 - 2 * y


def make_model(args, device, dtype):
    config = Phi3Config(**SHAPES[args.shape], rms_norm_eps=1e-5, rope_theta=10000.0, sliding_window=None, pad_token_id=0, bos_token_id=1,
                        eos_token_id=2, tie_word_embeddings=False, attn_implementation="sdpa", use_cache=False)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = Phi3ForCausalLM(config)
    torch.set_default_dtype(default)
    model.requires_grad_(False)
    rounded = []
    for layer in model.model.layers:
        for owner, name in ((layer.self_attn, "qkv_proj"), (layer.self_attn, "o_proj"), (layer.mlp, "gate_up_proj"), (layer.mlp, "down_proj")):
            rounded.append(RoundedLinear(getattr(owner, name).weight))
            setattr(owner, name, rounded[-1])
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if args.compile:
        for layer in model.model.layers:
            layer.compile()
    return model, rounded


def kl_rows(head, teacher, student):
    p = F.log_softmax(F.linear(teacher, head).float(), -1)
    q = F.log_softmax(F.linear(student, head).float(), -1)
    return F.kl_div(q, p, reduction="sum", log_target=True)


def make_step(model, rounded, args):
    optimizer = torch.optim.AdamW([r.x for r in rounded], lr=LR, betas=(0.9, 0.999), weight_decay=0.0, fused=True)
    factor = LAMBDA / statistics.mean(r.delta2 for r in rounded)
    head = model.lm_head.weight

    def hidden(tokens, student):
        RoundedLinear.student = student
        return model.model(input_ids=tokens, use_cache=False).last_hidden_state.flatten(0, 1)

    def step(tokens):
        with torch.no_grad():
            teacher = hidden(tokens, False)
        student = hidden(tokens, True)
        kl = sum(checkpoint(kl_rows, head, t, s, use_reentrant=False)
                 for t, s in zip(teacher.split(args.head_rows), student.split(args.head_rows)))
        kl = kl / tokens.numel()
        kl.backward()
        with torch.no_grad():
            for r in rounded:
                r.x.grad.mul_(factor).clamp_(-CLAMP, CLAMP).add_(r.pull())
            optimizer.step()
            torch._foreach_clamp_min_([r.x for r in rounded], 0.0)
            torch._foreach_clamp_max_([r.x for r in rounded], 1.0)
        optimizer.zero_grad(set_to_none=True)
        return kl

    return step


def attention_context(device):
    if device != "cuda":
        return contextlib.nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel
    return sdpa_kernel(SDPBackend.FLASH_ATTENTION)


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--shape", choices=SHAPES, default="phi3-mini")
    args.add_argument("--device", default="cuda")
    args.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    args.add_argument("--batch-size", type=int, help="windows per step (8; tiny: 2)")
    args.add_argument("--seq-len", type=int, help="tokens per window (2048; tiny: 64)")
    args.add_argument("--head-rows", type=int, default=2048, help="rows of logits at once (2048)")
    args.add_argument("--steps", type=int, default=5, help="timed steps, after 2 untimed ones (5)")
    args.add_argument("--compile", action="store_true", help="torch.compile of the layers")
    args = args.parse_args()
    batch, length = args.batch_size or BATCHES[args.shape][0], args.seq_len or BATCHES[args.shape][1]
    on_gpu = args.device == "cuda"
    torch.manual_seed(0)
    model, rounded = make_model(args, args.device, getattr(torch, args.dtype))
    step = make_step(model, rounded, args)
    tokens = [torch.randint(0, SHAPES[args.shape]["vocab_size"], (batch, length), device=args.device) for _ in range(2)]
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    times = []
    with attention_context(args.device):
        first = step(tokens[0]).item()
        step(tokens[1])
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        for k in range(args.steps):
            wait()
            start = time.perf_counter()
            last = step(tokens[k % 2])
            wait()
            times.append(time.perf_counter() - start)
    last = last.item()
    assert math.isfinite(first) and math.isfinite(last) and last != first
    weights, seconds, count = sum(r.w.numel() for r in rounded), statistics.median(times), batch * length
    print(json.dumps(dict(
        peer="torch", version=torch.__version__, transformers=transformers.__version__,
        device=torch.cuda.get_device_name() if on_gpu else args.device, shape=args.shape, dtype=args.dtype, batch=batch, seq_len=length,
        compile=args.compile, weights=weights, steps=args.steps, seconds=seconds, seconds_best=min(times), tokens_per_second=count / seconds,
        tflops_10=10e-12 * weights * count / seconds, peak_bytes=torch.cuda.max_memory_allocated() if on_gpu else None,
        kl_first=first, kl_last=last)))


if __name__ == "__main__":
    main()
