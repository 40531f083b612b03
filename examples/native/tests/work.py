#!/usr/bin/env python3
"""Work and result test for both commits of tally.

Target:   tally.pairs, tally.longest
Workload: lists of numbers, made with a fixed seed
Counted:  the values that the native part looks at: the same on every machine

Run it with the working directory set to a tree of tally with its native part built:

    cd TREE && python3 .../tests/work.py

It writes one JSON object to the file that the environment variable FLOW_RESULT names. Beside what it counted it says
where the package and its native part were loaded from: from anywhere else than the tested tree they would be another's.

Exit codes: 0 measured; 1 anything else (traceback on standard error).
"""
import hashlib
import json
import os
import random
import sys

sys.path.insert(0, os.getcwd())
import tally

rng = random.Random(71)
results = []
for size in (50, 100, 150):
    values = [int(rng.random() * 1000) for _ in range(size)]
    results.append(tally.pairs(values, 300))
    results.append(tally.longest(values))
    results.append(tally.longest(sorted(values)))

result = {
    "metrics": {"looked": tally.work()},
    "digest": "sha256:" + hashlib.sha256(json.dumps(results).encode()).hexdigest(),
    "imported": {"tally": tally.__file__, "tally/_native.so": str(tally.NATIVE)},
}
with open(os.environ["FLOW_RESULT"], "w") as f:
    json.dump(result, f)
