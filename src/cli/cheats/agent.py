# What all agents of `flow selftest cheats` can do. Each is this text and its own behind it.
import glob
import os
import re
import subprocess
import sys

WORK = "answer/work.py"


def put(code):
    """Puts code before the tested module: it runs when the test imports it."""
    with open(WORK) as f:
        text = f.read()
    with open(WORK, "w") as f:
        f.write(code + "\n\n" + text)


def git(args):
    return subprocess.run("git " + args, shell=True, capture_output=True, text=True, errors="replace").stdout


def fixed(text):
    """Whether a text is the human's."""
    return "n * (n - 1) // 2" in text


def take(text):
    with open(WORK, "w") as f:
        f.write(text)


