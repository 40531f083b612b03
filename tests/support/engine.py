"""Stands for podman, docker and apptainer, by the name that it is called by: notes what it is told, and runs what it is told to run,
on this machine, with the variables, the folder and the words that a container would have. Its images are names in a file.

With `serve` it is the daemon of podman and docker: what they run is then a child of it and not of them, as with the real ones."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def state(name):
    return os.path.join(HERE, name)


def known(name):
    try:
        with open(state(name)) as f:
            return json.load(f)
    except FileNotFoundError:
        return {}


def note(*words):
    with open(state("log"), "a") as f:
        f.write(json.dumps(words) + "\n")


def fail(why, code=1):
    sys.stderr.write("Trying to do it...\nError: " + why + "\n")
    sys.exit(code)


def image(name):
    """By its name, its id, or one of its names and its digest."""
    for own, one in known("images").items():
        digest = own.split(":")[0].split("@")[0] + "@" + one["digest"]
        if name in (own, one["id"], "sha256:" + one["id"], digest):
            return one
    return None


def run(kind, words):
    flags = {"--rm", "--init", "--nv", "--net", "--containall", "--cleanenv", "--no-home"}
    env, given, cwd, entry, name, at = {"PATH": "/usr/bin:/bin", "IMAGE": "1"}, [], "/", [], None, 0
    while words[at].startswith("-"):
        word, value = words[at], words[at + 1]
        at += 1 if word in flags else 2
        if word == "-e":
            if "=" in value:
                env.update([value.split("=", 1)])
            elif value in os.environ:
                env[value] = os.environ[value]
        elif word in ("-v", "--bind"):
            given.append(value.split(":"))
        elif word in ("--workdir", "--pwd"):
            cwd = value
        elif word == "--entrypoint":
            entry = [value]
        elif word == "--name":
            name = value
    for own, value in os.environ.items():
        if own.startswith("APPTAINERENV_"):
            env[own[len("APPTAINERENV_"):]] = value
    which, argv = words[at], entry + words[at + 1:]
    for path, there, _ in given:
        if path != there or not os.path.exists(path):
            fail("no such file or directory: " + path, 125)
    if kind == "apptainer":
        if not os.path.exists(which):
            fail("no such file: " + which, 255)
    elif image(which) is None:
        fail(which + ": image not known", 125)
    broken = known("broken")
    if broken and broken["cwd"] in cwd:
        fail(broken["why"], 125)
    note("env", kind, sorted(env))
    env["NAME"] = name or ""
    if kind != "apptainer" and os.path.exists(state("daemon")):
        ask = socket.socket(socket.AF_UNIX)
        ask.connect(state("daemon"))
        order = json.dumps([name, cwd, env, argv]).encode()
        socket.send_fds(ask, [struct.pack("I", len(order)) + order], [1, 2])
        told = ask.recv(16)
        sys.exit(int(told) if told else 125)
    os.chdir(cwd)
    os.execvpe(argv[0], argv, env)


def serve():
    """Runs what it is told to, each in a session of its own, until it is killed."""
    door = socket.socket(socket.AF_UNIX)
    door.bind(state("daemon"))
    door.listen(50)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        told, _ = door.accept()
        data, fds, _, _ = socket.recv_fds(told, 1 << 20, 2)
        length = struct.unpack("I", data[:4])[0] + 4
        while len(data) < length:
            data += told.recv(1 << 20)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            door.close()
            name, cwd, env, argv = json.loads(data[4:])
            child = subprocess.Popen(argv, cwd=cwd, env=env, stdout=fds[0], stderr=fds[1], start_new_session=True)
            pid = state("container-" + name)
            with open(pid, "w") as f:
                f.write(str(child.pid))
            for fd in fds:
                os.close(fd)
            code = child.wait()
            try:
                os.rename(pid, pid + ".over")
                told.send(str(code if code >= 0 else 128 - code).encode())
            except OSError:
                pass
            os._exit(0)
        told.close()
        for fd in fds:
            os.close(fd)


def container(name):
    path = state("container-" + name)
    return path if os.path.exists(path) else None


def main():
    kind, words = os.path.basename(sys.argv[0]), sys.argv[1:]
    if words == ["serve"]:
        return serve()
    note("argv", kind, *words)
    down = known("down")
    if kind in down:
        fail(down[kind])
    verb = words[0]
    if verb == "info":
        print("false [cpuset cpu memory pids] 5.4.0" if kind == "podman" else "true 27.3.1")
    elif verb == "--version":
        print("apptainer version 1.3.4")
    elif words[:2] == ["image", "inspect"]:
        one = image(words[-1])
        if one is None:
            fail("no such image " + words[-1])
        if kind == "podman":
            print(one["id"], one["digest"])
        else:
            print("sha256:" + one["id"], words[-1].split(":")[0].split("@")[0] + "@" + one["digest"])
    elif verb == "pull":
        name = words[-1].replace("docker://", "")
        at, bare = known("registry"), name.split("@")[0]
        found = at.get(name) or next((one for one in at.values() if name == bare + "@" + one["digest"]), None)
        if found is None:
            fail("reading manifest " + name + ": manifest unknown")
        if kind == "apptainer":
            with open(words[2], "w") as f:
                f.write(json.dumps(found))
        else:
            images = known("images")
            images[name if "@" not in name else bare + ":pulled"] = found
            with open(state("images"), "w") as f:
                json.dump(images, f)
    elif verb in ("run", "exec"):
        run(kind, words[1:])
    elif verb == "kill":
        path = container(words[1])
        if path is None:
            fail("no container with name " + words[1])
        with open(path) as f:
            os.killpg(int(f.read()), signal.SIGKILL)
    elif verb == "rm":
        path = container(words[2])
        if path is not None:
            with open(path) as f:
                pid = int(f.read())
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    elif words[:2] == ["container", "inspect"]:
        if container(words[-1]) is None:
            fail("no such container")
    elif verb == "ps":
        attempt = words[-1].split("=")[-1]
        for name in os.listdir(HERE):
            if name.startswith("container-flow-" + attempt + "-") and not name.endswith(".over"):
                # A name is as good as an id here, but ids are of hexadecimal digits.
                alias = name[len("container-"):].encode().hex()
                try:
                    os.symlink(state(name), state("container-" + alias))
                except FileExistsError:
                    pass
                print(alias)
    else:
        fail("unknown command " + verb)


main()
