#!/usr/bin/env python3
"""Golden tokens, losses and continuations of the bundled model in Hugging Face Transformers.

Purpose: the folder that our own program wrote is one that other software reads the same way.
Made with: Python 3.11, torch 2.15.0 (CPU), transformers 5.23.0, tokenizers 0.23.3.
Command:   HF_HUB_OFFLINE=1 python tests/golden/make_story_model.py BUILD       (rewrites story_model.json; BUILD is a build folder)

The texts are the first ten documents of the split `validation`. tokens: as AutoTokenizer gives them, <s> included; loss: mean of
-log p(token_{t+1} | tokens up to t), model in float64 (RMSNorm and softmax are float32 in Transformers); greedy: the 30 most likely
tokens, one after the other, behind the first question's "A:".
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE.parent.parent / "data" / "story-model"


def texts(build):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "v.jsonl"
        subprocess.run([pathlib.Path(build) / "data" / "discquant-data", "corpus", "--quiet", "--split", "validation", "--documents", "10", "--out",
                        path], check=True, stdout=subprocess.DEVNULL)
        return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


@torch.no_grad()
def main():
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float64, attn_implementation="eager").eval()
    documents = []
    for text in texts(sys.argv[1]):
        ids = tokenizer(text).input_ids
        logp = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
        loss = -logp[:-1].gather(1, torch.tensor(ids[1:])[:, None]).mean().item()
        prompt = tokenizer(text[: text.index("A:") + 2]).input_ids
        made = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=30, min_new_tokens=30)[0, len(prompt):].tolist()
        documents.append(dict(text=text, tokens=ids, loss=loss, greedy=made))
    out = json.dumps(dict(documents=documents)).replace('{"text"', '\n{"text"')
    (HERE / "story_model.json").write_text(out + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
