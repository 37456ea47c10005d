"""Are the roundings in a folder good? One judge for all of them.

    walk_check.py FOLDER

FOLDER holds matrix.npy [n, m], y.npy [n] and any number of x-NAME.npy [n] or x-NAME.txt (a number a line). Per x one JSON line: residual, the
largest |M_j (x - y)| / |M_j| over the rows j of M; outside, how far x leaves [0, 1] at most; fractional, how many coordinates are neither 0 nor 1;
distance2, |x - y|^2 / n.
"""
import glob
import json
import os
import sys

import numpy as np


def main():
    folder = sys.argv[1]
    M, y = np.load(f"{folder}/matrix.npy"), np.load(f"{folder}/y.npy")
    norms = np.linalg.norm(M, axis=0)
    for path in sorted(glob.glob(f"{folder}/x-*")):
        name, kind = os.path.splitext(os.path.basename(path)[2:])
        x = np.load(path) if kind == ".npy" else np.loadtxt(path)
        print(json.dumps({"n": M.shape[0], "m": M.shape[1], "what": name, "residual": float((np.abs((x - y) @ M) / norms).max()),
                          "outside": max(0.0, float(-x.min()), float(x.max() - 1)), "fractional": int(((x > 0) & (x < 1)).sum()),
                          "distance2": float(((x - y) ** 2).mean())}))


if __name__ == "__main__":
    main()
