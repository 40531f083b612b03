#!/usr/bin/env python3
"""Work and result test for commit b5fe2aeb of shop.

Target:   shop.customers.duplicates
Workload: lists of addresses, some of which occur twice or more often
Counted:  comparisons and hashes of addresses

Run it with the working directory set to a tree of shop, which need not be installed:

    cd TREE && python3 .../tests/b5fe2aeb.py

The last line of standard output is one JSON object; if the environment variable
FLOW_RESULT names a file, the same object is written there too.

Exit codes: 0 measured; 3 shop was imported from elsewhere; 4 the target does not
exist in this tree; 1 anything else (traceback on standard error, no JSON).
"""
import hashlib
import importlib
import json
import os
import random
import sys

PACKAGE = "shop"
MODULE = "shop.customers"
NAME = "duplicates"
SEED = 1000
ROUNDS = 4  # calls; every one gets an input of its own


class Work:
    """Counts what the function does with what it is given: the same on every machine and every Python."""

    ops = 0


class Email:
    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        Work.ops += 1
        return self.number == other.number

    def __hash__(self):
        Work.ops += 1
        return hash(self.number)


def pick(rng, count):
    """A number from 0 to count - 1. Of random's methods only random() promises the same numbers in every version."""
    return int(rng.random() * count)


def make_input(rng):
    return [Email(pick(rng, 60)) for _ in range(80)]


def call(target, emails):
    return list(target(emails))


def canonical(found):
    return [email.number for email in found]


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
    ops, results = 0, []
    for _ in range(ROUNDS):
        args = make_input(rng)
        before = Work.ops
        result = call(target, args)
        ops += Work.ops - before
        results.append(canonical(result))
    emit({"metrics": {"ops": ops}, "digest": digest(results)}, 0)


if __name__ == "__main__":
    main()
