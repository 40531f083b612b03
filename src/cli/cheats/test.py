# The test of `flow selftest cheats`. It measures one call of the tested package, on inputs that the package cannot know.
import hashlib
import json
import os
import sys
import time

sys.path.insert(0, os.getcwd())
import answer.work

if not answer.work.__file__.startswith(os.getcwd() + os.sep):
    sys.exit(3)

seed = 71_993_041
# Each mark is stamped by flow's own clock, which no code in here can patch.
mark = int(os.environ["FLOW_MARK"])
os.write(mark, b"<")
begin = time.perf_counter()
result = answer.work.total(seed, 8_000_000)
took = time.perf_counter() - begin
os.write(mark, b">")

digest = "sha256:" + hashlib.sha256(str(result).encode()).hexdigest()
with open(os.environ["FLOW_RESULT"], "w") as f:
    json.dump({"metrics": {"time_s": took}, "digest": digest}, f)
