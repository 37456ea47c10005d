#!/usr/bin/env python3
"""Perplexity of a saved Hugging Face folder as Transformers computes it, by the definition of `discquant-bench eval --task perplexity`.

The file is tokenized once, as the folder's tokenizer does it (its BOS at the start only), and cut into consecutive windows of
--seq-len tokens; the tail is dropped. The loss of a window is the mean of its T - 1 predictions, perplexity is exp of the mean over
windows. With --reference: KL(reference || model) as the mean over all T positions, and the share of positions with the same first
choice. Weights and arithmetic fp32, sums fp64. Prints one JSON line.
"""
import argparse
import json
import math
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def read_windows(args):
    with open(args.data, encoding="utf-8", newline="") as f:
        ids = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json")).encode(f.read()).ids
    count = len(ids) // args.seq_len
    if args.windows:
        count = min(count, args.windows)
    if count == 0:
        raise SystemExit(f"torch_eval: error: {args.data} has {len(ids)} tokens, fewer than one window of {args.seq_len}")
    return torch.tensor(ids[:count * args.seq_len]).view(count, args.seq_len), len(ids)


@torch.no_grad()
def evaluate(model, reference, windows, batch):
    loss = kl = same = 0.0
    for t in windows.split(batch):
        lq = torch.log_softmax(model(t, use_cache=False).logits.float(), -1)
        loss -= lq[:, :-1].gather(-1, t[:, 1:, None]).double().squeeze(-1).mean(-1).sum().item()
        if reference is not None:
            lp = torch.log_softmax(reference(t, use_cache=False).logits.float(), -1)
            kl += (lp.exp() * (lp - lq)).double().sum(-1).mean(-1).sum().item()
            same += (lp.argmax(-1) == lq.argmax(-1)).double().mean(-1).sum().item()
    n = len(windows)
    return loss / n, kl / n, same / n


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--model", required=True, metavar="DIR")
    args.add_argument("--data", required=True, metavar="FILE")
    args.add_argument("--seq-len", type=int, default=256)
    args.add_argument("--windows", type=int, default=0, help="only the first N (0: all)")
    args.add_argument("--reference", metavar="DIR", help="the original model, for KL and top-1 agreement")
    args.add_argument("--batch-size", type=int, default=8)
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    windows, tokens = read_windows(args)
    reference = load(args.reference) if args.reference else None
    loss, kl, same = evaluate(load(args.model), reference, windows, args.batch_size)
    result = dict(model=args.model, data=args.data, seq_len=args.seq_len, tokens=tokens, windows=len(windows), loss=loss,
                  perplexity=math.exp(loss))
    if reference is not None:
        result |= dict(kl=kl, top1_agreement=same)
    result["transformers"] = transformers.__version__
    print(json.dumps(result))


if __name__ == "__main__":
    main()
