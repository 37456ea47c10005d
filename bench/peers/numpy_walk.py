"""The textbook walk in numpy: Gaussian steps in the null space of M, cut at the faces of the box.

    numpy_walk.py FOLDER [--step 0.1] [--seed 3]

FOLDER holds matrix.npy [n, m] and y.npy [n], as walk_speed --folder writes them; x-numpy.npy comes to stand beside them. Per step,
with q the rows of an orthonormal frame that belong to fractional coordinates and r = Q (x - y):

    x <- x - q (q'q)^-1 r + step (g - q (q'q)^-1 q'g),   g normal;  what leaves the box is cut to its face and stays there

q'q is made anew in each step, as textbooks have it. The walk stops at 16 m fractional coordinates; then the others correct what the last cut
did. This is what the engine `clamp` of walk/ does with its Gram matrix kept up to date. Prints one JSON line.
"""
import argparse
import json
import time

import numpy as np


def walk(Q, y, step, stop, rng, clock):
    n, m = Q.shape
    x, free, q, r = y.copy(), np.arange(n), Q, np.zeros(m)
    steps = 0
    limit = 1e-13 * np.sqrt(n)
    while len(free) > stop or np.abs(r).max() > limit:
        walking = len(free) > stop
        begin = time.perf_counter()
        gram = q.T @ q
        clock["gram_seconds"] += time.perf_counter() - begin
        now = x[free]
        if walking:
            g = rng.standard_normal(len(free))
            c = np.linalg.solve(gram, np.stack([r, q.T @ g], axis=1))
            both = q @ c
            new = np.clip(now - both[:, 0] + step * (g - both[:, 1]), 0, 1)
        else:
            new = np.clip(now - q @ np.linalg.solve(gram, r), 0, 1)
        r = r + q.T @ (new - now)
        x[free] = new
        inside = (new > 0) & (new < 1)
        free, q = free[inside], q[inside]
        steps += walking
        if not walking:
            r = Q.T @ (x - y)
    return x, steps


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--step", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=3)
    arguments = parser.parse_args()
    M = np.load(f"{arguments.folder}/matrix.npy")
    y = np.load(f"{arguments.folder}/y.npy")
    clock = {"gram_seconds": 0.0}
    begin = time.perf_counter()
    Q = np.linalg.qr(M)[0]
    framed = time.perf_counter()
    x, steps = walk(Q, y, arguments.step, 16 * M.shape[1], np.random.default_rng(arguments.seed), clock)
    end = time.perf_counter()
    np.save(f"{arguments.folder}/x-numpy.npy", x)
    print(json.dumps({"n": M.shape[0], "m": M.shape[1], "what": "numpy", "frame_seconds": framed - begin, "walk_seconds": end - framed,
                      "gram_seconds": clock["gram_seconds"], "steps": steps, "numpy": np.__version__}))


if __name__ == "__main__":
    main()
