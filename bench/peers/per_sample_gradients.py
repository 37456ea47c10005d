#!/usr/bin/env python3
"""Per-sample gradients of a language model and their projection to k numbers in PyTorch, on the CPU, for comparison with
`discquant-spectra spectrum` in the same run: the same model, text, window and k, and the same weights (matrices inside layers).

--method vmap   vmap(grad) over a batch of windows (torch.func), then one product with a dense Gaussian matrix [n, k]
--method loop   one window per backward pass as in the reference's script for Figure 3; the gradient is projected in one product
--projection stored        the matrix is made once and kept: n k 4 bytes
--projection regenerated   as in that script: made anew from its seed for every two samples, a slice of columns at a time

One sketch per sample (ours makes several). Squared norms too. The first batch is not timed. Prints samples per second,
and processor seconds per sample of all threads, which a busy machine changes less.
"""
import argparse
import json
import time

import torch
from torch.func import functional_call, grad, vmap
from transformers import AutoModelForCausalLM, AutoTokenizer


def windows_of(args, tokenizer):
    with open(args.corpus, encoding="utf-8") as file:
        text = file.read(args.samples * args.seq_len * 16)
    ids = torch.tensor(tokenizer(text)["input_ids"])
    n = len(ids) // args.seq_len
    assert n >= args.samples, f"{n} windows of {args.seq_len} tokens are too few"
    return ids[:args.samples * args.seq_len].view(args.samples, args.seq_len)


class Projection:
    """Gaussian [n, k] / sqrt(k), stored or made anew, `columns` columns at a time."""

    def __init__(self, n, k, stored, columns=64):
        self.n, self.k, self.columns = n, k, columns
        self.matrix = torch.randn(n, k, generator=torch.Generator().manual_seed(1)).div_(k**0.5) if stored else None

    def __call__(self, x):                                              # [B, n] -> [B, k]
        if self.matrix is not None:
            return x @ self.matrix
        parts, generator = [], torch.Generator().manual_seed(1)
        for first in range(0, self.k, self.columns):
            width = min(self.columns, self.k - first)
            parts.append(x @ torch.randn(self.n, width, generator=generator))
        return torch.cat(parts, 1).div_(self.k**0.5)


def linear_weights(model):
    return [name + ".weight" for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and ".layers." in "." + name]


def mean_loss(logits, tokens):
    return torch.nn.functional.cross_entropy(logits[0, :-1].float(), tokens[1:])


def by_vmap(model, names, batches, project):
    weights = dict(model.named_parameters())
    chosen = {name: weights[name].detach() for name in names}
    rest = {name: value.detach() for name, value in weights.items() if name not in chosen}

    def loss(chosen, tokens):
        out = functional_call(model, {**rest, **chosen}, (tokens[None],), {"use_cache": False})
        return mean_loss(out.logits, tokens)

    per_sample = vmap(grad(loss), in_dims=(None, 0), randomness="same")
    for tokens in batches:
        grads = per_sample(chosen, tokens)
        flat = torch.cat([grads[name].flatten(1) for name in names], 1)
        yield flat.square().sum(1), project(flat)


def by_loop(model, names, batches, project):
    weights = dict(model.named_parameters())
    for name, value in weights.items():
        value.requires_grad_(name in names)
    for batch in batches:
        rows = []
        for tokens in batch:
            model.zero_grad(set_to_none=True)
            mean_loss(model(tokens[None], use_cache=False).logits, tokens).backward()
            rows.append(torch.cat([weights[name].grad.flatten() for name in names]))
        flat = torch.stack(rows)
        yield flat.square().sum(1), project(flat)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--method", choices=["vmap", "loop"], default="vmap")
    parser.add_argument("--projection", choices=["stored", "regenerated"], default="stored")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=0, help="default: 16, with --projection regenerated 2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    size = args.batch_size or (2 if args.projection == "regenerated" else 16)
    args.samples += size                                                # the first batch is not timed
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32,
                                                 attn_implementation="eager" if args.method == "vmap" else "sdpa").eval()
    windows = windows_of(args, tokenizer)
    names = linear_weights(model)
    n = sum(dict(model.named_parameters())[name].numel() for name in names)
    project = Projection(n, args.dim, args.projection == "stored")
    run = by_vmap if args.method == "vmap" else by_loop
    norms, sketched, begun, cpu = [], [], None, 0.0
    for norm, sketch in run(model, names, windows.split(size), project):
        if begun is None:
            begun, cpu = time.perf_counter(), time.process_time()
            continue
        norms.append(norm)
        sketched.append(sketch.square().sum(1))
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    norms, sketched = torch.cat(norms).double(), torch.cat(sketched).double()
    out = dict(method=args.method, projection=args.projection, samples=len(norms), weights=n, dim=args.dim,
               batch_size=size, threads=args.threads, seconds=seconds, samples_per_second=len(norms) / seconds,
               cpu_seconds_per_sample=cpu / len(norms),
               norm2_mean=norms.mean().item(), sketched=(sketched / norms).mean().item(), torch=torch.__version__)
    print(json.dumps(out) if args.json else "  ".join(f"{key} {value}" for key, value in out.items()))


if __name__ == "__main__":
    main()
