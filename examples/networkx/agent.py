#!/usr/bin/env python3
"""Plays an agent: applies an edit to the working directory, if there is one for the commit.

    agent.py EDITS.py FILE.edit

Without the file it changes nothing and ends well, as an agent does that finds no remedy.
"""
import os
import sys

edits, edit = sys.argv[1:]
if not os.path.exists(edit):
    print("there is no edit for this commit")
    sys.exit(0)
os.execv(sys.executable, [sys.executable, edits, edit])
