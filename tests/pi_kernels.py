"""Kernels of some operations against the reference, on the machine this runs on: `python tests/pi_kernels.py CASES OPERATION...`

It is what `test_pi.py` runs on emulated cores, where neither Hypothesis nor other packages of tests are. CASES is for each signature.
"""

from __future__ import annotations

import os
import sys

from kernel_cases import BEST, MACHINES, cases, check
from strategies import signatures


def main() -> None:
    count, *ops = sys.argv[1:]
    tried = 0
    cache = os.environ["EDGE_CACHE"]
    before = len(os.listdir(cache)) if os.path.isdir(cache) else 0
    for op in ops:
        for signature in signatures(op):
            for seed, one in enumerate(cases(op, signature, int(count))):
                check(one, MACHINES[BEST], at_end=seed % 2 == 0)
                tried += 1
    print(f"{tried} cases agree on {MACHINES[BEST].cpu} with {BEST}; {len(os.listdir(cache)) - before} kernels compiled here")


if __name__ == "__main__":
    main()
