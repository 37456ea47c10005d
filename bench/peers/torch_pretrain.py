#!/usr/bin/env python3
"""Times a pretraining step written in PyTorch, on the CPU, for comparison with `discquant-data pretrain` in the same run.

The step: next-token cross entropy of all weights, backward, clipping of the gradient's norm, AdamW with warmup and cosine (decay on matrices,
not on gains and the embedding). Everything fp32, random weights and tokens; the network and what PyTorch offers for it are those of torch_step.py.
"""
import argparse
import json
import math
import statistics
import time

import torch
import torch.nn.functional as F

from torch_step import Model

RATE, WARMUP, STEPS, DECAY, CLIP = 1e-3, 100, 1000, 0.1, 1.0


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--hidden", type=int, default=128)
    args.add_argument("--intermediate", type=int, default=256)
    args.add_argument("--layers", type=int, default=4)
    args.add_argument("--heads", type=int, default=4)
    args.add_argument("--vocab-size", type=int, default=632)
    args.add_argument("--batch-size", type=int, default=4)
    args.add_argument("--seq-len", type=int, default=256)
    args.add_argument("--steps", type=int, default=40, help="timed steps, after 3 untimed ones (40)")
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = Model(dict(hidden=args.hidden, inter=args.intermediate, layers=args.layers, heads=args.heads, kv=args.heads, vocab=args.vocab_size,
                       tied=True, batch=args.batch_size, length=args.seq_len))
    model.embedding.mul_(args.hidden**-0.5)
    plain = [model.embedding, *model.norms]
    for w in model.weights + plain:
        w.requires_grad_()
    optimizer = torch.optim.AdamW([dict(params=model.weights, weight_decay=DECAY), dict(params=plain, weight_decay=0.0)], lr=RATE,
                                  betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: (t + 1) / WARMUP if t < WARMUP else 0.55 + 0.45 * math.cos(math.pi * (t - WARMUP) / (STEPS - WARMUP)))

    def step(tokens):
        logits = model.logits(model.weights, tokens)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.weights + plain, CLIP, foreach=True)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    batches = [torch.randint(0, args.vocab_size, (args.batch_size, args.seq_len)) for _ in range(4)]
    losses, times = [step(b) for b in batches[:3]], []
    for k in range(args.steps):
        start = time.perf_counter()
        losses.append(step(batches[k % 4]))
        times.append(time.perf_counter() - start)
    assert all(map(math.isfinite, losses)) and losses[-1] != losses[0]
    print(json.dumps(dict(peer="torch", version=torch.__version__, threads=args.threads, steps=args.steps, seconds_per_step=statistics.median(times),
                          tokens_per_second=args.batch_size * args.seq_len / statistics.median(times), loss_first=losses[0], loss_last=losses[-1])))


if __name__ == "__main__":
    main()
