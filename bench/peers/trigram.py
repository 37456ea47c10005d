#!/usr/bin/env python3
"""Nats per document of a 3-gram model with interpolated Kneser-Ney smoothing: what a model without memory makes of a corpus.

Trained on the first --tokens tokens of --corpus, measured on --validation (both .jsonl with "text"), tokenized by the folder's tokenizer, each
document on its own with its BOS. With c the counts of the highest order and, below it, the number of different tokens seen before an n-gram,
    p(w | h) = max(c(h w) - D, 0) / c(h) + D n(h) / c(h) p(w | h without its first token),   D = n1 / (n1 + 2 n2),
n(h) the number of different tokens behind h, n1 and n2 the number of n-grams seen once and twice (Kneser and Ney 1995; Chen and Goodman 1999).
Below single tokens stands the even distribution. Prints one JSON line.
"""
import argparse
import json
import os

import numpy as np
from tokenizers import Tokenizer


def documents(tokenizer, path, limit=None):
    count = 0
    with open(path, encoding="utf-8") as f:
        while lines := f.readlines(1 << 22):
            for e in tokenizer.encode_batch([json.loads(line)["text"] for line in lines]):
                yield np.array(e.ids, dtype=np.int64)
                count += len(e.ids)
                if limit and count >= limit:
                    return


class Order:
    """Discounted counts of n-grams, given as keys; the context of a key is key // vocab."""

    def __init__(self, keys, counts, vocab):
        self.vocab, self.keys, self.counts = vocab, keys, counts
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        self.discount = once / (once + 2 * twice) if once else 0.0
        self.contexts, start = np.unique(keys // vocab, return_index=True)
        self.totals = np.add.reduceat(counts, start)
        self.kinds = np.diff(np.append(start, len(keys)))

    def probability(self, keys, below):
        i = np.searchsorted(self.contexts, keys // self.vocab).clip(max=len(self.contexts) - 1)
        known = self.contexts[i] == keys // self.vocab
        k = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        count = np.where(self.keys[k] == keys, self.counts[k], 0)
        p = (np.maximum(count - self.discount, 0) + self.discount * self.kinds[i] * below) / self.totals[i]
        return np.where(known, p, below)


def trigrams(ids, vocab):
    """Keys of the tokens of a document behind its BOS; before the BOS stands another BOS."""
    a = np.concatenate([ids[:1], ids])
    return (a[:-2] * vocab + a[1:-1]) * vocab + a[2:]


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--model", required=True, metavar="DIR", help="folder with tokenizer.json")
    args.add_argument("--corpus", required=True, metavar="FILE")
    args.add_argument("--validation", required=True, metavar="FILE")
    args.add_argument("--tokens", type=int, default=10_000_000)
    args = args.parse_args()
    tokenizer = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
    vocab = tokenizer.get_vocab_size()
    train = np.concatenate([trigrams(d, vocab) for d in documents(tokenizer, args.corpus, args.tokens)])
    orders = [Order(*np.unique(train, return_counts=True), vocab)]
    for size in (vocab * vocab, vocab):
        orders.append(Order(*np.unique(orders[-1].keys % size, return_counts=True), vocab))
    validation = list(documents(tokenizer, args.validation))
    keys = np.concatenate([trigrams(d, vocab) for d in validation])
    p = np.full(len(keys), 1 / vocab)
    for order, size in zip(orders[::-1], (vocab, vocab * vocab, vocab**3)):
        p = order.probability(keys % size, p)
    nats = -np.log(p).sum()
    print(json.dumps(dict(trained_tokens=len(train), trigrams=len(orders[0].keys), documents=len(validation), nats_per_token=nats / len(keys),
                          nats_per_document=nats / len(validation))))


if __name__ == "__main__":
    main()
