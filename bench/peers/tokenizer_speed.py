#!/usr/bin/env python3
"""Tokens per second of discquant-data tokenize beside Hugging Face `tokenizers`, one thread each, on the same file.

    python bench/peers/tokenizer_speed.py build/data/discquant-data TOKENIZER.json TEXT

Needs the package `tokenizers`. Best of five each; loading is not counted; both must give the same number of tokens.
"""
import os
import re
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import tokenizers  # noqa: E402

program, tokenizer, path = sys.argv[1:]
text = open(path, encoding="utf-8", newline="").read()
n_bytes = len(text.encode())
theirs = ours = float("inf")
peer = tokenizers.Tokenizer.from_file(tokenizer)
for _ in range(5):
    start = time.perf_counter()
    n_tokens = len(peer.encode(text).ids)
    theirs = min(theirs, time.perf_counter() - start)
    line = subprocess.run([program, "tokenize", "--count", tokenizer, path], capture_output=True, text=True, check=True).stdout
    match = re.match(r"(\d+) tokens, \d+ bytes, ([0-9.]+) s", line)
    assert int(match[1]) == n_tokens, (line, n_tokens)
    ours = min(ours, float(match[2]))
print("%s: %d tokens; ours %.1f MB/s, tokenizers %s %.1f MB/s, ratio %.1f"
      % (os.path.basename(path), n_tokens, n_bytes / ours / 1e6, tokenizers.__version__, n_bytes / theirs / 1e6, theirs / ours))
