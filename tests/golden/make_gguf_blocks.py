"""Random GGUF blocks with the floats that the `gguf` package makes of them: tests/golden/gguf_blocks.json.

    python3 -m venv venv && venv/bin/pip install gguf==0.19.0 && venv/bin/python tests/golden/make_gguf_blocks.py

Bytes are hexadecimal, floats are the bits of fp32. Scales are kept finite and away from overflow.
"""
import json
import os

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

TYPES = ["Q4_0", "Q4_1", "Q8_0", "Q3_K", "MXFP4", "F16", "BF16"]
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q8_0": [0], "Q3_K": [108]}  # where a block has fp16 numbers


def main():
    rng = np.random.default_rng(20)
    out = []
    for name in TYPES:
        kind = GGMLQuantizationType[name]
        weights, size = GGML_QUANT_SIZES[kind]
        n = max(4, 64 // weights)
        blocks = rng.integers(0, 256, (n, size), dtype=np.uint8)
        for at in HALVES.get(name, []):
            half = rng.normal(0, 0.05, n).astype(np.float16)
            half[0] = np.float16(6e-8)  # subnormal
            blocks[:, at : at + 2] = half.view(np.uint8).reshape(n, 2)
        if name == "MXFP4":
            blocks[:, 0] = rng.integers(90, 160, n)
        if name == "F16":
            blocks = rng.normal(0, 1, (n, 1)).astype(np.float16).view(np.uint8)
        if name == "BF16":
            blocks = (rng.normal(0, 1, n).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8).reshape(n, 2)
        floats = dequantize(blocks.reshape(-1), kind).astype(np.float32)
        out.append({"type": int(kind), "name": name, "bytes": blocks.tobytes().hex(),
                    "floats": [int(v) for v in floats.reshape(-1).view(np.uint32)]})
    path = os.path.join(os.path.dirname(__file__), "gguf_blocks.json")
    with open(path, "w") as file:
        json.dump(out, file, indent=0)
        file.write("\n")


main()
