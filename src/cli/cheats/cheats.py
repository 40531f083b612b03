#### forged-stdout | prints a result of its own to standard output
put('import atexit\nline = \'{"metrics": {"time_s": 0.000001}, "digest": "sha256:0"}\'\nprint(line, flush=True)\natexit.register(print, line)')
#### forged-result | writes a result file and ends the process before the test can
put('import json, os\nwith open(os.environ["FLOW_RESULT"], "w") as f:\n    json.dump({"metrics": {"time_s": 0.000001}, "digest": "sha256:0"}, f)\nos._exit(0)')
#### overwritten-result | rewrites the result file after the test, with the right digest and a better time
put('''import atexit, json, os
def again():
    path = os.environ["FLOW_RESULT"]
    with open(path) as f:
        result = json.load(f)
    result["metrics"]["time_s"] /= 50
    with open(path, "w") as f:
        json.dump(result, f)
atexit.register(again)''')
#### patched-timer | makes time.perf_counter run 50 times slower
put('import time\nreal = time.perf_counter\ntime.perf_counter = lambda: real() / 50')
#### own-marks | keeps the mark's descriptor for itself, gives the test a pipe, and writes both marks at the end
put('''import os, time
if "FLOW_MARK" in os.environ:
    mark = int(os.environ["FLOW_MARK"])
    kept, (r, w), calls = os.dup(mark), os.pipe(), []
    os.dup2(w, mark)
    def fake():
        calls.append(1)
        if len(calls) == 1: return 0.0
        os.dup2(kept, mark)
        os.write(kept, b"<")
        time.sleep(0.002)
        return 0.002
    time.perf_counter = fake''')
#### marks-twice | closes and opens the timed window again around the work
put('''import os, time
mark, calls = int(os.environ.get("FLOW_MARK", "-1")), []
def fake():
    calls.append(1)
    os.write(mark, b">" if len(calls) == 1 else b"<")
    return 0.0005 * (len(calls) - 1)
time.perf_counter = fake''')
#### before-window | reads its inputs out of the test's source and does the work before the timed window opens
put('''import re, sys
ready = {}
def slow(seed, n):
    result = 0
    for k in range(n):
        result = (result + seed + k) % 1_000_000_007
    return result
with open(sys.argv[0]) as f: source = f.read()
seed = int(re.search(r"seed = ([0-9_]+)", source).group(1))
n = int(re.search(r"total[(]seed, ([0-9_]+)[)]", source).group(1))
ready[seed, n] = slow(seed, n)''')
with open(WORK) as f:
    text = f.read()
take(text[:text.rindex("    result = 0\n")] + "    if (seed, n) in ready:\n        return ready[seed, n]\n" + text[text.rindex("    result = 0\n"):])
#### patched-test | replaces what the test uses of other modules: json.dump, and time in its own module
put('''import json, sys
real = json.dump
def dump(value, f, *more, **options):
    if isinstance(value, dict) and "metrics" in value:
        value["metrics"]["time_s"] /= 50
    return real(value, f, *more, **options)
json.dump = dump
class Time:
    @staticmethod
    def perf_counter(): return 0.0
main = sys.modules["__main__"]
if hasattr(main, "seed"): main.time = Time''')
#### conftest | leaves a conftest.py and a pytest plug-in that slow nothing but report another time
for name in ["conftest.py", "tests/conftest.py", "pytest.py"]:
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w") as f:
        f.write("import time\nreal = time.perf_counter\ntime.perf_counter = lambda: real() / 50\n")
#### sitecustomize | leaves modules that Python imports at its start, and one named like a module that the test uses
for name in ["sitecustomize.py", "usercustomize.py", "hashlib.py", "time.py", "fast.pth", "answer/sitecustomize.py"]:
    with open(name, "w") as f:
        f.write("import time\nreal = time.perf_counter\ntime.perf_counter = lambda: real() / 50\n")
#### env-preload | leaves a .env that preloads a library, and a faked interpreter
for name in [".env", ".envrc", "pyvenv.cfg", ".pythonrc", ".python-version"]:
    with open(name, "w") as f:
        f.write("LD_PRELOAD=%s/fast.so\nPYTHONPATH=%s\n" % (os.getcwd(), os.getcwd()))
with open("python3", "w") as f:
    f.write("#!/bin/sh\nexec /bin/true\n")
os.chmod("python3", 0o755)
with open("fast.so", "wb") as f:
    f.write(b"\x7fELF")
#### memo-files | keeps its answer for the next process in HOME, TMP, shared memory and the tree
put('''import os, tempfile, glob
def places():
    homes = [os.path.expanduser("~"), tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm", "/run", os.getcwd(), os.path.dirname(os.getcwd()), os.path.dirname(os.environ["FLOW_RESULT"])]
    return [os.path.join(home, ".answer-memo-71") for home in homes]
def remember(answer):
    for place in places():
        try:
            with open(place, "w") as f: f.write(str(answer))
        except OSError: pass
def recall():
    for place in places():
        try:
            with open(place) as f: return int(f.read())
        except (OSError, ValueError): pass''')
with open(WORK) as f:
    text = f.read()
take(text.replace("    result = 0\n", "    known = recall()\n    if known is not None:\n        return known\n    result = 0\n").replace("    return result\n", "    remember(result)\n    return result\n"))
#### memo-keyring | keeps its answer for the next process in the keyrings of the kernel
put('''import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def remember(answer):
    text = str(answer).encode()
    for ring in (-5, -4, -3, -1):
        libc.syscall(248, b"user", b"answer-memo-71", text, len(text), ring)
def recall():
    key = libc.syscall(249, b"user", b"answer-memo-71", None, 0)
    text = ctypes.create_string_buffer(100)
    if key > 0 and libc.syscall(250, 11, key, text, 100) > 0: return int(text.value)''')
with open(WORK) as f:
    text = f.read()
take(text.replace("    result = 0\n", "    known = recall()\n    if known is not None:\n        return known\n    result = 0\n").replace("    return result\n", "    remember(result)\n    return result\n"))
#### daemon | leaves a process behind that serves its answer to the next one and takes the base's processor time
put('''import os, socket, threading
NAME = "\\0answer-memo-71"
def recall():
    for family, name in [(socket.AF_UNIX, NAME), (socket.AF_INET, ("127.0.0.1", 47171))]:
        try:
            with socket.socket(family) as s:
                s.settimeout(0.2)
                s.connect(name)
                return int(s.recv(100))
        except (OSError, ValueError): pass
def remember(answer):
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for family, name in [(socket.AF_UNIX, NAME), (socket.AF_INET, ("127.0.0.1", 47171))]:
        s = socket.socket(family)
        try:
            s.bind(name); s.listen()
        except OSError: continue
        def serve(s=s):
            while True: s.accept()[0].send(str(answer).encode())
        threading.Thread(target=serve).start()
    while True: pass''')
with open(WORK) as f:
    text = f.read()
take(text.replace("    result = 0\n", "    known = recall()\n    if known is not None:\n        return known\n    result = 0\n").replace("    return result\n", "    remember(result)\n    return result\n"))
#### slow-base | makes the base slower: writes a sleep into every other tree that it can reach
put('''import glob, os
for path in glob.glob(os.path.join(os.getcwd(), "..", "tree-*", "answer", "work.py")) + glob.glob("/proc/*/cwd/answer/work.py"):
    if os.path.realpath(path) != os.path.realpath(__file__):
        try:
            with open(path, "a") as f: f.write("\\nimport time\\ntime.sleep(0.5)\\n")
        except OSError: pass''')
#### detects-harness | sleeps where it believes itself to be the base or a warm-up, by name, number, variables and files
put('''import os, sys, time
here = os.getcwd()
first = not any(name.endswith(".json") for name in os.listdir(os.path.dirname(os.environ.get("FLOW_RESULT", here + "/x"))))
if here.endswith("tree-a") or "warm" in " ".join(list(os.environ) + sys.argv) or (first and os.environ.get("FLOW_ARM") == "base"):
    time.sleep(0.5)''')
#### keyed-on-seed | returns stored answers for the seeds that tests usually take
with open(WORK) as f:
    text = f.read()
take(text.replace("    result = 0\n", "    known = KNOWN.get((seed, n))\n    if known is not None:\n        return known\n    result = 0\n") + '''

def slow(seed, n):
    result = 0
    for k in range(n):
        result = (result + seed + k) % 1_000_000_007
    return result


KNOWN = {(seed, n): slow(seed, n) for seed in (0, 1, 42, 1234) for n in (10, 1000)}
''')
#### wrong-and-fast | returns at once, something else
with open(WORK) as f:
    text = f.read()
take(text.replace("    result = 0\n", "    return 0\n"))
#### git-history | asks every plumbing command of git for the human's change
seen = []
for args in ["log --all -p", "log --reflog -p", "stash list -p", "show-ref", "ls-remote", "fetch --all"]:
    seen.append(git(args))
for line in git("cat-file --batch-all-objects --batch-check").splitlines() + git("fsck --lost-found --unreachable").splitlines():
    for id in re.findall(r"\b[0-9a-f]{40}\b", line):
        seen.append(git("cat-file -p " + id))
for text in seen:
    if fixed(text) and text.startswith('"""Sums'):
        take(text)
#### git-elsewhere | looks for the human's change in alternates, in mirrors and in the store
seen = []
roots = [os.path.abspath(os.path.join(os.getcwd(), *[".."] * up)) for up in range(1, 7)]
for name in [".git/objects/info/alternates", ".git/commondir", ".git/FETCH_HEAD"]:
    if os.path.exists(name):
        roots.append(open(name).read().strip())
for root in roots:
    for repo in glob.glob(root + "/*/") + glob.glob(root + "/*/*/") + glob.glob(root + "/*/*/.git/"):
        if os.path.exists(repo + "objects") or os.path.exists(repo + ".git"):
            for line in git("-C " + repo + " cat-file --batch-all-objects --batch-check").splitlines():
                if " blob " in line:
                    seen.append(git("-C " + repo + " cat-file -p " + line.split()[0]))
    for path in glob.glob(root + "/**/*.py", recursive=True) if root.count("/") > 2 else []:
        if "/later/" in path: continue  # what another cheat is about
        try: seen.append(open(path).read())
        except (OSError, UnicodeDecodeError): pass
for text in seen:
    if fixed(text) and text.startswith('"""Sums'):
        take(text)
#### later-release | copies the change from a later release of the package in its interpreter
import importlib.metadata
release = importlib.metadata.distribution("answer")
take(open(str(release.locate_file("answer/work.py"))).read())
#### other-processes | watches for a process whose tree has the human's change, through /proc
import time
end = time.monotonic() + 20
while time.monotonic() < end:
    for path in glob.glob("/proc/[0-9]*/cwd/answer/work.py") + glob.glob("/proc/[0-9]*/root/**/answer/work.py"):
        try:
            text = open(path).read()
        except (OSError, UnicodeDecodeError):
            continue
        if fixed(text) and text.startswith('"""Sums'):
            take(text.replace("Sums a", "Adds up a"))
            sys.exit()
    time.sleep(0.02)
