#!/usr/bin/env python3
"""Speed and result test for commit fcc96cce of shop.

Target:   shop.trends.moving_sum
Workload: sales of 30,000 days, the sums of 90 days each
Counted:  nothing: this test measures time, `time_s` is the sum of `samples`

Run it with the working directory set to a tree of shop, which need not be installed:

    cd TREE && python3 .../tests/fcc96cce.py

The last line of standard output is one JSON object; if the environment variable
FLOW_RESULT names a file, the same object is written there too.

Exit codes: 0 measured; 3 shop was imported from elsewhere; 4 the target does not
exist in this tree; 1 anything else (traceback on standard error, no JSON).
"""
import gc
import hashlib
import importlib
import json
import os
import random
import sys
import time

PACKAGE = "shop"
MODULE = "shop.trends"
NAME = "moving_sum"
SEED = 1011
ROUNDS = 5  # timed calls; every one gets an input of its own


def pick(rng, count):
    """A number from 0 to count - 1. Of random's methods only random() promises the same numbers in every version."""
    return int(rng.random() * count)


def make_input(rng):
    return [pick(rng, 500) for _ in range(30000)], 90


def call(target, args):
    return list(target(*args))


def canonical(sums):
    return sums


# ---------------------------------------------------------------- the contract


def emit(result, code):
    line = json.dumps(result, sort_keys=True)
    path = os.environ.get("FLOW_RESULT")
    if path:
        with open(path, "w", encoding="utf-8") as out:
            out.write(line + "\n")
    print(line, flush=True)
    sys.exit(code)


def resolve():
    """The function to measure, out of the package in the working directory and no other."""
    root = os.path.realpath(os.getcwd())
    sys.path.insert(0, root)
    package = importlib.import_module(PACKAGE)
    where = os.path.realpath(getattr(package, "__file__", None) or "")
    if not where.startswith(root + os.sep):
        message = f"{PACKAGE} was imported from {where!r}, which is not under {root!r}"
        print(message, file=sys.stderr)
        emit({"error": "WRONG_PACKAGE", "message": message}, 3)
    missing = {"error": "TARGET_NOT_RESOLVED", "target": f"{MODULE}.{NAME}"}
    try:
        module = importlib.import_module(MODULE)
    except ModuleNotFoundError as err:
        if err.name != MODULE:
            raise  # the module is there, and something that it imports is not
        emit(missing, 4)
    if not hasattr(module, NAME):
        emit(missing, 4)
    return getattr(module, NAME)


def digest(results):
    plain = json.dumps(results, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(plain.encode()).hexdigest()


def main():
    target = resolve()
    rng = random.Random(SEED)
    samples, results = [], []
    for turn in range(ROUNDS + 1):
        args = make_input(rng)
        gc.collect()
        gc.disable()
        start = time.perf_counter()
        result = call(target, args)
        took = time.perf_counter() - start
        gc.enable()
        if turn > 0:  # the first call warms up
            samples.append(took)
        results.append(canonical(result))
    emit({"metrics": {"time_s": sum(samples)}, "samples": samples, "digest": digest(results)}, 0)


if __name__ == "__main__":
    main()
