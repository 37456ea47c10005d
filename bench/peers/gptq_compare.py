#!/usr/bin/env python3
"""`discquant --method gptq` beside IST-DASLab/gptq: the same grid, windows, damping and order of columns; KL and time in turns, in one run.

    git clone https://github.com/IST-DASLab/gptq CHECKOUT      (measured with commit 2d65066)
    python bench/peers/gptq_compare.py --build build --gptq CHECKOUT --model DIR --calibration FILE --validation FILE

Theirs is its class GPTQ (gptq.py of the checkout) as it is: Hessian, Cholesky factors, column loop, static groups. What is written here
is what its llama.py does for an older Transformers: layer by layer, true sequential, one window at a time, inputs from the layers rounded
before; and a quantizer with our grid in the place of theirs, the paper's block scaling with scales rounded to fp16. --batch-size windows
at a time is the kinder way for PyTorch.

Times are those of the rounding alone, without reading models and text and without evaluation: ours is the sum of `seconds` in
metrics.jsonl. KL(original || rounded) is the mean over positions of the first --windows validation windows, theirs computed here in
PyTorch, ours from result.json. --random-hidden C makes a random Llama of that width (8 heads, 2 layers, the model's tokenizer) and
rounds it instead. Prints Markdown, or one JSON line per case with --json.
"""
import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # for both: waiting threads sleep, as ours do by themselves

import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

SEQUENTIAL = [["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"],
              ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]]


class BlockScaling(torch.nn.Module):
    """The interface of the checkout's Quantizer: points scale * (0 .. 2^b - 1 minus 2^(b-1)), scale = fp16(2 max|w| / (2^b - 1))."""

    def __init__(self, bits):
        super().__init__()
        self.maxq = torch.tensor(2 ** bits - 1)
        self.register_buffer("scale", torch.zeros(1))
        self.register_buffer("zero", torch.zeros(1))

    def find_params(self, w, weight=True):
        scale = 2 * w.double().abs().amax(1, keepdim=True) / self.maxq
        self.scale = scale.float().half().float()
        self.zero = torch.full_like(self.scale, (self.maxq.item() + 1) // 2)

    def ready(self):
        return bool(torch.all(self.scale != 0))


def windows_of(model, path, seq_len, count):
    with open(path, encoding="utf-8", newline="") as f:
        ids = Tokenizer.from_file(os.path.join(model, "tokenizer.json")).encode(f.read()).ids
    count = min(count, len(ids) // seq_len)
    return torch.tensor(ids[:count * seq_len]).view(count, seq_len)


@torch.no_grad()
def round_model(GPTQ, model, windows, args, bits, group_size):
    rotary = model.model.rotary_emb
    states = [model.model.embed_tokens(t) for t in windows.split(args.batch_size)]
    positions = torch.arange(windows.shape[1])[None]
    embeddings = rotary(states[0], positions)

    def forward(layer, x):
        y = layer(x, attention_mask=None, position_ids=positions, position_embeddings=embeddings, use_cache=False)
        return y[0] if isinstance(y, tuple) else y

    for layer in model.model.layers:
        for names in SEQUENTIAL:
            jobs, handles = {}, []
            for name in names:
                module = layer.get_submodule(name)
                jobs[name] = GPTQ(module)
                jobs[name].quantizer = BlockScaling(bits)
                handles.append(module.register_forward_hook(lambda _, x, y, job=jobs[name]: job.add_batch(x[0].data, y.data)))
            for x in states:
                forward(layer, x)
            for handle in handles:
                handle.remove()
            for job in jobs.values():
                with contextlib.redirect_stdout(io.StringIO()):
                    job.fasterquant(percdamp=args.damping, groupsize=group_size, actorder=args.column_order == "activation",
                                    static_groups=True)
                job.free()
        states = [forward(layer, x) for x in states]


@torch.no_grad()
def divergence(model, reference, windows):
    kl = 0.0
    for t in windows.split(8):
        lq = torch.log_softmax(model(t, use_cache=False).logits.float(), -1)
        lp = torch.log_softmax(reference(t, use_cache=False).logits.float(), -1)
        kl += (lp.exp() * (lp - lq)).double().sum(-1).mean(-1).sum().item()
    return kl / len(windows)


def random_model(folder, tokenizer_of, hidden):
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=hidden, intermediate_size=hidden * 43 // 16, num_hidden_layers=2, num_attention_heads=8,
                         num_key_value_heads=4, vocab_size=Tokenizer.from_file(os.path.join(tokenizer_of, "tokenizer.json")).get_vocab_size(),
                         max_position_embeddings=2048, initializer_range=1.5 / hidden ** 0.5, tie_word_embeddings=False)
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(tokenizer_of, name), folder)


def ours(args, model, folder, bits, group_size):
    out = os.path.join(folder, "run")
    subprocess.run([os.path.join(args.build, "discquant/discquant"), "--method", "gptq", "--model", model, "--calibration", args.calibration,
                    "--validation", args.validation, "--validation-samples", str(args.windows), "--samples", str(args.samples),
                    "--seq-len", str(args.seq_len), "--bits", str(bits), "--group-size", str(group_size), "--damping", str(args.damping),
                    "--column-order", args.column_order, "--threads", str(args.threads), "--quiet", "--force", "--out", out], check=True)
    with open(os.path.join(out, "result.json")) as f:
        result = json.load(f)
    with open(os.path.join(out, "metrics.jsonl")) as f:
        seconds = sum(json.loads(line)["seconds"] for line in f)
    return result["kl"], result["kl_rtn"], seconds


def theirs(GPTQ, args, path, windows, validation, bits, group_size):
    reference = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa").eval()
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa").eval()
    start = time.perf_counter()
    round_model(GPTQ, model, windows, args, bits, group_size)
    seconds = time.perf_counter() - start
    return divergence(model, reference, validation), seconds


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--build", required=True, metavar="DIR")
    args.add_argument("--gptq", required=True, metavar="DIR", help="a checkout of IST-DASLab/gptq")
    args.add_argument("--model", required=True, metavar="DIR")
    args.add_argument("--calibration", required=True, metavar="FILE")
    args.add_argument("--validation", required=True, metavar="FILE")
    args.add_argument("--bits", type=int, nargs="+", default=[3, 4])
    args.add_argument("--group-size", type=int, nargs="+", default=[-1, 32])
    args.add_argument("--column-order", choices=["activation", "natural"], default="activation")
    args.add_argument("--damping", type=float, default=0.01)
    args.add_argument("--seq-len", type=int, default=256)
    args.add_argument("--samples", type=int, default=128, help="calibration windows")
    args.add_argument("--windows", type=int, default=60, help="validation windows")
    args.add_argument("--batch-size", type=int, default=1, help="windows per pass of theirs")
    args.add_argument("--random-hidden", type=int, default=0, metavar="C")
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--rounds", type=int, default=3, help="turns per case; times are medians")
    args.add_argument("--json", action="store_true")
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.cuda.synchronize = lambda: None  # their code calls it whatever the device
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    sys.path.insert(0, args.gptq)
    from gptq import GPTQ
    if not args.json:
        print("| bits | group | KL, RTN | KL, ours | KL, theirs | ours / theirs | seconds, ours | theirs | ratio |")
        print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = args.model
        if args.random_hidden:
            path = os.path.join(folder, "random")
            random_model(path, args.model, args.random_hidden)
        windows = windows_of(path, args.calibration, args.seq_len, args.samples)
        validation = windows_of(path, args.validation, args.seq_len, args.windows)
        for bits in args.bits:
            for group in args.group_size:
                a, b = [], []
                for _ in range(args.rounds):
                    kl_ours, kl_rtn, seconds = ours(args, path, folder, bits, group)
                    a.append(seconds)
                    kl_theirs, seconds = theirs(GPTQ, args, path, windows, validation, bits, group)
                    b.append(seconds)
                s_ours, s_theirs = statistics.median(a), statistics.median(b)
                row = dict(bits=bits, group_size=group, kl_rtn=kl_rtn, kl_ours=kl_ours, kl_theirs=kl_theirs, seconds_ours=s_ours,
                           seconds_theirs=s_theirs, ratio=s_theirs / s_ours, torch=torch.__version__)
                print(json.dumps(row) if args.json else f"| {bits} | {group} | {kl_rtn:.4f} | {kl_ours:.4f} | {kl_theirs:.4f} | "
                      f"{kl_ours / kl_theirs:.3f} | {s_ours:.2f} | {s_theirs:.2f} | {s_theirs / s_ours:.1f} |", flush=True)


if __name__ == "__main__":
    main()
