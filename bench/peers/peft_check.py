#!/usr/bin/env python3
"""A run of `discquant --lora-rank` read by PEFT: the same logits as ours, with the adapter on the rounded model and merged.

Reads RUN/model and RUN/adapter with Transformers and PEFT, and RUN/merged where `--lora-merge` wrote it; our logits come from the tool
`logits` of the build (tests/tools/logits.c) on the first windows of --data. Prints one JSON line with the largest absolute differences and
exits with 1 where one is above --tolerance.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import peft
import torch
import transformers
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()


@torch.no_grad()
def logits_of(model, windows):
    return torch.cat([model(t, use_cache=False).logits.double() for t in windows.split(4)]).reshape(-1, model.config.vocab_size).numpy()


def ours(args, model, adapter=None):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "logits.npy")
        subprocess.run([os.path.join(args.build, "tests", "logits"), model, args.data, str(args.seq_len), str(args.windows), out] +
                       ([adapter] if adapter else []), check=True)
        return np.load(out)


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--run", required=True, metavar="DIR", help="run folder with model and adapter")
    args.add_argument("--data", required=True, metavar="FILE")
    args.add_argument("--build", default="build", metavar="DIR")
    args.add_argument("--seq-len", type=int, default=256)
    args.add_argument("--windows", type=int, default=8)
    args.add_argument("--tolerance", type=float, default=1e-4)
    args = args.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model, adapter, merged = (os.path.join(args.run, name) for name in ("model", "adapter", "merged"))
    with open(args.data, encoding="utf-8", newline="") as f:
        ids = Tokenizer.from_file(os.path.join(model, "tokenizer.json")).encode(f.read()).ids
    windows = torch.tensor(ids[:args.windows * args.seq_len]).view(-1, args.seq_len)
    base = load(model)
    bare = logits_of(base, windows)
    adapted = PeftModel.from_pretrained(base, adapter).eval()
    theirs = logits_of(adapted, windows)
    mine = ours(args, model, adapter)
    result = dict(run=args.run, windows=len(windows), adapter_moves=float(abs(theirs - bare).max()), difference=float(abs(theirs - mine).max()),
                  difference_without=float(abs(bare - ours(args, model)).max()))
    if os.path.isdir(merged):
        result |= dict(difference_merged=float(abs(logits_of(load(merged), windows) - theirs).max()),
                       difference_merged_ours=float(abs(ours(args, merged) - mine).max()))
    result |= dict(peft=peft.__version__, transformers=transformers.__version__)
    print(json.dumps(result))
    return any(value > args.tolerance for key, value in result.items() if key.startswith("difference"))


if __name__ == "__main__":
    sys.exit(main())
