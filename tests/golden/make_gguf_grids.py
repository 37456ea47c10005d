"""Random weights and what the `gguf` package rounds them to: tests/golden/gguf_grids.json.

    python3 -m venv venv && venv/bin/pip install gguf==0.19.0 numpy==2.4.6 && venv/bin/python tests/golden/make_gguf_grids.py

Per type, weights and rounded [rows, 64]; floats are the bits of fp32. The rows are normal, of one sign, far from zero, one large weight
among small ones, with a block of zeros, and uniform.
"""
import json
import os

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

GRIDS = {"q4_0": "Q4_0", "q4_1": "Q4_1", "q8_0": "Q8_0", "mxfp4": "MXFP4"}


def bits(values):
    return [int(v) for v in np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)]


def main():
    rng = np.random.default_rng(7)
    w = rng.normal(0, 0.04, (6, 64)).astype(np.float32)
    w[1] = np.abs(w[1])
    w[2] += np.float32(0.3)
    w[3, ::20] *= 30
    w[4, :32] = 0
    w[5] = rng.uniform(-2, 1, 64)
    out = []
    for grid, name in GRIDS.items():
        kind = GGMLQuantizationType[name]
        rounded = dequantize(quantize(w, kind), kind)
        out.append({"grid": grid, "rows": 6, "cols": 64, "weights": bits(w), "rounded": bits(rounded)})
    path = os.path.join(os.path.dirname(__file__), "gguf_grids.json")
    with open(path, "w") as file:
        json.dump(out, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
