"""What GSWDesign.jl's way of solving costs at least, as a model: its solves counted, their parts measured here with numpy.

    gsw_model.py N M

That package walks from y to a corner; each step freezes one coordinate, so there are N solves. It keeps a Cholesky factor [M, M], and
starts anew with the columns that are left when a third is frozen. A solve with k columns is at least

    two products with the factor, two triangular systems with it      counted as four products [M, M] x [M]
    the direction: one product [k, M] x [M] over all k columns        measured for each k

Not counted, though the package does it: the change of the factor at each freeze, its copies, the loops over k for step sizes
and faces. So this is a bound from below. Prints one JSON line.
"""
import json
import sys
import time

import numpy as np


def seconds(work, least=0.2):
    """Median seconds of a call."""
    work()
    taken, total = [], 0.0
    while total < least or len(taken) < 5:
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
        total += taken[-1]
    return float(np.median(taken))


def main():
    n, m = int(sys.argv[1]), int(sys.argv[2])
    rng = np.random.default_rng(0)
    rows, square, a = rng.standard_normal((n, m)), rng.standard_normal((m, m)), rng.standard_normal(m)
    small = 4 * seconds(lambda: square @ a, 0.05)
    levels, left, solves, total = 0, n, 0, 0.0
    while left > 0:
        here = min(left, max(5, left // 3))
        level = rows[:left]
        total += here * (small + seconds(lambda: level @ a))
        solves, levels, left = solves + here, levels + 1, left - here
    print(json.dumps({"n": n, "m": m, "what": "gsw-model", "walk_seconds": total, "factor_seconds": n * small, "solves": solves,
                      "levels": levels, "numpy": np.__version__}))


if __name__ == "__main__":
    main()
