#!/usr/bin/env python3
"""A language model of the tests' own, on loopback: real agents talk to it as they talk to their provider.

It plays a conversation from a file, knows three wires, fails on request, and logs what it served. Standard library only.

    server.py --port-file F --log L.jsonl --scripts DIR

Wires: OpenAI Responses (`…/responses`), OpenAI chat (`…/chat/completions`), Anthropic Messages (`…/messages`), each plain and as
a stream of events. The port is the kernel's choice and is written to F. SIGTERM ends it, and so does the end of its standard
input (a test that dies leaves no server behind).

The base URL says what a client meets, so that one server serves any number of agents at once:

    http://127.0.0.1:PORT/script=edit/fault=rate-limit/from=1/times=2/job=7/v1

    script=NAME   DIR/NAME.json is the conversation; `done` (nothing to do) if not said
    fault=NAME    quota-exceeded, rate-limit, invalid-key, expired-token, no-tool-output, tool-result-missing,
                  empty-error-content, context-length, model-not-found, server-error, overloaded, truncated-json,
                  truncated-body, hang, drop
    from=N        the first turn that meets the fault, from 0; the faults that complain of a tool call begin at 1
    times=N       how many requests of this job meet it, then it is over; `rate-limit` 1, others without end
    job=ID        what the log and the counting of `times` call the client

A conversation is a list of turns; which turn a request is at follows from its own history, so a repeated request gets the same answer:

    [{"say": "…", "run": "ls", "usage": {"input": 900, "cache_read": 200, "cache_write": 0, "output": 50}},
     {"edit": ["path", "old", "new"]}, {"done": "…"}]

`run`, `edit` and `done` become whatever tool the request offers for it; `"call": [tool, arguments]` is one tool by name, and nothing
where it is not offered. `usage` is disjoint, as flow counts: the wires of OpenAI
report `input + cache_read` as input, as OpenAI does. Where it is left out, four characters are a token. The log has one JSON
line a request: {"job", "wire", "turn", "status", "fault", "tools", "usage"}; the sum of its usage is what flow has to find.

A history in which a tool call has no result is refused with the service's own words, fault or not: an agent's own bug shows.
"""

import argparse
import json
import os
import re
import signal
import sys
import threading
import time
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGEST_REQUEST = 32 << 20
LONGEST_HANG = 600
OVER = threading.Event()


def digest(*parts):
    return sha256(repr(parts).encode()).hexdigest()[:22]


def estimate(value):
    text = value if isinstance(value, str) else json.dumps(value)
    return len(text) // 4 + 1


def plain(content):
    """The text of a message, which is a string or a list of blocks."""
    if isinstance(content, list):
        return "\n".join(plain(block.get("text", "")) for block in content if isinstance(block, dict))
    return content if isinstance(content, str) else ""


def runs(flags):
    """How many runs of true there are: some agents split one turn of the model into several messages."""
    return sum(now and not before for before, now in zip([False] + flags, flags))


# ---------------------------------------------------------------- what a request says


class Asked:
    """A request, whatever its wire: the turn it is at, the tools it offers, and the calls whose results it lacks."""

    def __init__(self, wire, body):
        self.wire, self.model = wire, str(body.get("model") or "a-model")
        self.stream = bool(body.get("stream"))
        self.chat_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self.tools, self.calls, self.lacking, self.turn, self.empty = {}, [], [], 0, None
        self.size = estimate(body)
        getattr(self, wire)(body)

    def offers(self, tool, kind="function"):
        for inner in tool.get("tools") or []:  # a namespace of tools
            self.offers(inner)
        self.tools[tool.get("name") or tool.get("type")] = kind

    def responses(self, body):
        items = body.get("input") or []
        items = [{"role": "user", "content": items}] if isinstance(items, str) else items
        for tool in body.get("tools") or []:
            self.offers(tool, tool.get("type"))
        answered = {item.get("call_id") for item in items if str(item.get("type")).endswith("_output")}
        calls = [item for item in items if str(item.get("type")).endswith("_call")]
        self.calls = [call.get("call_id") or call.get("id") for call in calls]
        self.lacking = [call for call in self.calls if call not in answered]
        ours = [item.get("role") == "assistant" or item in calls or item.get("type") == "reasoning" for item in items]
        self.turn = runs(ours)
        earlier = re.match(r"resp_(\d+)_", str(body.get("previous_response_id")))
        self.turn += int(earlier[1]) + 1 if earlier else 0
        self.text = "\n".join([str(body.get("instructions"))] + [plain(item.get("content")) for item in items])

    def chat(self, body):
        messages = body.get("messages") or []
        for tool in body.get("tools") or []:
            self.offers(tool.get("function") or {})
        self.turn = runs([message.get("role") == "assistant" for message in messages])
        for message in messages:
            if message.get("role") == "assistant":
                if not self.lacking:
                    self.lacking = [call.get("id") for call in message.get("tool_calls") or []]
                    self.calls += self.lacking
            elif message.get("role") == "tool":
                self.lacking = [call for call in self.lacking if call != message.get("tool_call_id")]
        self.text = "\n".join(plain(message.get("content")) for message in messages)

    def messages(self, body):
        messages = body.get("messages") or []
        for tool in body.get("tools") or []:
            self.offers(tool, tool.get("type") or "custom")
        self.turn = runs([message.get("role") == "assistant" for message in messages])
        for number, message in enumerate(messages):
            blocks = message.get("content") if isinstance(message.get("content"), list) else []
            if message.get("role") == "assistant":
                if not self.lacking:
                    self.lacking = [block.get("id") for block in blocks if block.get("type") == "tool_use"]
                    self.calls += self.lacking
                continue
            for at, block in enumerate(blocks):
                if block.get("type") == "tool_result":
                    self.lacking = [call for call in self.lacking if call != block.get("tool_use_id")]
                    if block.get("is_error") and not block.get("content"):
                        self.empty = "messages.%d.content.%d" % (number, at)
        self.text = plain(body.get("system")) + "\n".join(plain(message.get("content")) for message in messages)


# ---------------------------------------------------------------- what the model says


WORK_TREE = [r"\[Project root path\]:\s*\n(/[^\n]+)", r"<cwd>(/[^<\n]+)</cwd>", r"[Ww]orking directory: (/[^\n\]]+)"]
SUBMIT = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"


def work_tree(asked):
    found = (re.search(pattern, asked.text) for pattern in WORK_TREE)
    return next((match[1].strip() for match in found if match), ".")


def shell(command, asked):
    """A call of the tool that runs shell commands, as each agent names it."""
    strict = {"restart": False} if asked.wire == "responses" else {}
    shapes = {
        "bash": dict(strict, command=command),  # trae, mini-swe-agent
        "Bash": {"command": command, "description": "a step of the script"},  # claude
        "exec_command": {"cmd": command},  # codex
        "shell_command": {"command": command},
        "shell": {"command": ["bash", "-c", command]},
        "terminal": {"command": command, "security_risk": "LOW", "summary": "a step"},  # openhands
        "execute_bash": {"command": command, "security_risk": "LOW"},
    }
    name = next((name for name in shapes if name in asked.tools), None)
    return (name, shapes[name]) if name else None


def edit(path, old, new, asked):
    whole = os.path.join(work_tree(asked), path)
    if "str_replace_based_edit_tool" in asked.tools:  # trae's own editor
        arguments = {"command": "str_replace", "path": whole, "old_str": old, "new_str": new}
        if asked.wire == "responses":
            arguments.update(file_text=None, insert_line=None, view_range=None)
        return "str_replace_based_edit_tool", arguments
    program = "import sys,json\npath, old, new = json.loads(%r)\ntext = open(path).read()\nassert old in text\nopen(path, 'w').write(text.replace(old, new, 1))\n"
    return shell("python3 - <<'END_OF_EDIT'\n%sEND_OF_EDIT" % (program % json.dumps([path, old, new])), asked)


def done(text, asked):
    if "task_done" in asked.tools:
        return "task_done", {}
    if "finish" in asked.tools:
        return "finish", {"message": text}
    return shell("echo " + SUBMIT, asked) if SUBMIT in asked.text else None


class Said:
    """The model's turn: a text, tool calls as (id, name, arguments, kind), and what it cost."""

    def __init__(self, turns, asked, cut):
        turn = asked.turn
        if "*SEARCH/REPLACE" in asked.text:  # aider asks once, for blocks of text, after two turns of an example
            turn = next((at for at, spec in enumerate(turns) if "edit" in spec), 0)
        spec = turns[turn] if turn < len(turns) else {"done": "There is nothing left to do."}
        self.text, calls = spec.get("say", ""), []
        if "run" in spec:
            calls.append(shell(spec["run"], asked))
        if "edit" in spec:
            calls.append(edit(*spec["edit"], asked))
        if "call" in spec and spec["call"][0] in asked.tools:
            calls.append(tuple(spec["call"]))
        if "done" in spec:
            self.text = spec["done"]
            calls.append(done(spec["done"], asked))
        if not any(calls) and not asked.tools and "edit" in spec:  # aider: no tools, blocks of text
            path, old, new = spec["edit"]
            block = "%s\n```python\n<<<<<<< SEARCH\n%s=======\n%s>>>>>>> REPLACE\n```" % (path, old, new)
            self.text = self.text + "\n" + block
        self.text = self.text or ("" if any(calls) else "Fine.")
        self.cut, self.calls = cut, []
        for name, arguments in filter(None, calls):
            arguments = json.dumps(arguments)
            arguments = arguments[: len(arguments) // 2] if cut else arguments
            prefix = "toolu_01" if asked.wire == "messages" else "call_"
            self.calls.append((prefix + digest(asked.turn, name, arguments), name, arguments, asked.tools[name]))
        guess = {"input": asked.size, "cache_read": 0, "cache_write": 0, "output": estimate([self.text, self.calls])}
        self.usage = dict(guess, **spec.get("usage", {}))
        if asked.wire != "messages":  # nobody else tells what was written into a cache: it is input like any other
            self.usage["input"] += self.usage["cache_write"]
            self.usage["cache_write"] = 0


def responses_body(asked, said):
    status, output = "incomplete" if said.cut else "completed", []
    if said.text:
        part = {"type": "output_text", "text": said.text, "annotations": []}
        item = {"type": "message", "id": "msg_" + digest(said.text), "role": "assistant", "content": [part]}
        output.append(dict(item, status="completed"))
    for call, name, arguments, kind in said.calls:
        custom = {"type": "custom_tool_call", "input": arguments}
        item = custom if kind == "custom" else {"type": "function_call", "arguments": arguments}
        output.append(dict(item, id="fc_" + digest(call), call_id=call, name=name, status=status))
    usage = said.usage
    whole = usage["input"] + usage["cache_read"]
    return {
        "id": "resp_%d_%s" % (asked.turn, digest(said.text, said.calls)),
        "object": "response",
        "created_at": 1700000000,
        "model": asked.model,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if said.cut else None,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "metadata": {},
        "usage": {
            "input_tokens": whole,
            "input_tokens_details": {"cached_tokens": usage["cache_read"]},
            "output_tokens": usage["output"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": whole + usage["output"],
        },
    }


def responses_events(asked, said):
    whole = responses_body(asked, said)
    opened = dict(whole, status="in_progress", output=[], usage=None)
    yield "response.created", {"response": opened}
    for index, item in enumerate(whole["output"]):
        at = {"item_id": item["id"], "output_index": index}
        if item["type"] == "message":
            empty = dict(item, status="in_progress", content=[])
            here = dict(at, content_index=0)
            part = item["content"][0]
            yield "response.output_item.added", {"output_index": index, "item": empty}
            yield "response.content_part.added", dict(here, part=dict(part, text=""))
            yield "response.output_text.delta", dict(here, delta=part["text"])
            yield "response.output_text.done", dict(here, text=part["text"])
            yield "response.content_part.done", dict(here, part=part)
        else:
            field = "input" if "input" in item else "arguments"
            event = "response.custom_tool_call_input" if field == "input" else "response.function_call_arguments"
            yield "response.output_item.added", {"output_index": index, "item": dict(item, **{field: ""})}
            yield event + ".delta", dict(at, delta=item[field])
            yield event + ".done", dict(at, **{field: item[field]})
        yield "response.output_item.done", {"output_index": index, "item": item}
    yield "response.incomplete" if said.cut else "response.completed", {"response": whole}


def chat_body(asked, said):
    message = {"role": "assistant", "content": said.text or None}
    if said.calls:
        message["tool_calls"] = [
            {"id": call, "type": "function", "function": {"name": name, "arguments": arguments}}
            for call, name, arguments, _ in said.calls
        ]
    usage = said.usage
    whole = usage["input"] + usage["cache_read"]
    reason = "length" if said.cut else "tool_calls" if said.calls else "stop"
    return {
        "id": "chatcmpl-" + digest(asked.turn, said.text),
        "object": "chat.completion",
        "created": 1700000000,
        "model": asked.model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {
            "prompt_tokens": whole,
            "prompt_tokens_details": {"cached_tokens": usage["cache_read"]},
            "completion_tokens": usage["output"],
            "total_tokens": whole + usage["output"],
        },
    }


def chat_events(asked, said):
    whole = chat_body(asked, said)
    base = {"id": whole["id"], "object": "chat.completion.chunk", "created": whole["created"], "model": asked.model}
    choice = whole["choices"][0]
    delta = dict(choice["message"])
    if said.calls:
        delta["tool_calls"] = [dict(call, index=index) for index, call in enumerate(delta["tool_calls"])]
    yield None, dict(base, choices=[{"index": 0, "delta": delta, "finish_reason": None}])
    yield None, dict(base, choices=[{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}])
    if asked.chat_usage:
        yield None, dict(base, choices=[], usage=whole["usage"])
    yield None, "[DONE]"


def messages_body(asked, said):
    blocks = [{"type": "text", "text": said.text}] if said.text else []
    for call, name, arguments, _ in said.calls:
        # On this wire arguments that were cut are no object, and nothing of them is there.
        value = {} if said.cut else json.loads(arguments)
        blocks.append({"type": "tool_use", "id": call, "name": name, "input": value})
    usage = said.usage
    return {
        "id": "msg_01" + digest(asked.turn, said.text, said.calls),
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": blocks,
        "stop_reason": "max_tokens" if said.cut else "tool_use" if said.calls else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage["input"],
            "cache_read_input_tokens": usage["cache_read"],
            "cache_creation_input_tokens": usage["cache_write"],
            "output_tokens": usage["output"],
        },
    }


def messages_events(asked, said):
    whole = messages_body(asked, said)
    opened = dict(whole, content=[], stop_reason=None, usage=dict(whole["usage"], output_tokens=1))
    yield "message_start", {"message": opened}
    arguments = {call[0]: call[2] for call in said.calls}
    for index, block in enumerate(whole["content"]):
        if block["type"] == "text":
            empty, delta = dict(block, text=""), {"type": "text_delta", "text": block["text"]}
        else:
            empty = dict(block, input={})
            delta = {"type": "input_json_delta", "partial_json": arguments[block["id"]]}
        yield "content_block_start", {"index": index, "content_block": empty}
        yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield "message_delta", {"delta": delta, "usage": whole["usage"]}
    yield "message_stop", {}


BODIES = {"responses": responses_body, "chat": chat_body, "messages": messages_body}
EVENTS = {"responses": responses_events, "chat": chat_events, "messages": messages_events}


# ---------------------------------------------------------------- how it fails


def openai(status, message, kind, code=None, headers=None):
    return status, {"error": {"message": message, "type": kind, "param": None, "code": code}}, headers or {}


def anthropic(status, message, kind, headers=None):
    return status, {"type": "error", "error": {"type": kind, "message": message}}, headers or {}


def missing_output(asked, call):
    if asked.wire == "messages":
        text = "messages.%d: `tool_use` ids were found without `tool_result` blocks immediately after: %s. Each `tool_use` block must have a corresponding `tool_result` block in the next message."
        return anthropic(400, text % (2 * asked.turn, call), "invalid_request_error")
    if asked.wire == "chat":
        text = "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: %s"
        return openai(400, text % call, "invalid_request_error")
    return openai(400, "No tool output found for function call %s." % call, "invalid_request_error")


def empty_content(where):
    text = "%s.tool_result: content cannot be empty if `is_error` is true"
    return anthropic(400, text % where, "invalid_request_error")


def expired():
    body = {"__type": "ExpiredTokenException", "message": "The security token included in the request is expired"}
    return 403, body, {"x-amzn-errortype": "ExpiredTokenException"}


# For each fault: the answer on OpenAI's wires, and on Anthropic's. None: not an answer of a status, see `serve`.
FAULTS = {
    "quota-exceeded": (
        lambda asked: openai(429, "You exceeded your current quota, please check your plan and billing details.", "insufficient_quota", "insufficient_quota"),
        lambda asked: anthropic(400, "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.", "invalid_request_error"),
    ),
    "rate-limit": (
        lambda asked: openai(429, "Rate limit reached for %s in organization org-tests on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. Please try again in 1s." % asked.model, "tokens", "rate_limit_exceeded", {"retry-after": "1"}),
        lambda asked: anthropic(429, "This request would exceed your organization's rate limit of 30,000 input tokens per minute.", "rate_limit_error", {"retry-after": "1"}),
    ),
    "invalid-key": (
        lambda asked: openai(401, "Incorrect API key provided: sk-tests****0000.", "invalid_request_error", "invalid_api_key"),
        lambda asked: anthropic(401, "invalid x-api-key", "authentication_error"),
    ),
    "expired-token": (lambda asked: expired(),) * 2,
    "no-tool-output": (lambda asked: missing_output(asked, asked.calls[-1] if asked.calls else "call_none"),) * 2,
    "tool-result-missing": (
        lambda asked: anthropic(400, "messages.2: `tool_use` ids were found without `tool_result` blocks immediately after: %s. Each `tool_use` block must have a corresponding `tool_result` block in the next message." % (asked.calls[-1] if asked.calls else "none"), "invalid_request_error"),
    ) * 2,
    "empty-error-content": (lambda asked: empty_content("messages.2.content.0"),) * 2,
    "context-length": (
        lambda asked: openai(400, "Your input exceeds the context window of this model. Please adjust your input and try again.", "invalid_request_error", "context_length_exceeded"),
        lambda asked: anthropic(400, "prompt is too long: 208310 tokens > 200000 maximum", "invalid_request_error"),
    ),
    "model-not-found": (
        lambda asked: openai(404, "The model `%s` does not exist or you do not have access to it." % asked.model, "invalid_request_error", "model_not_found"),
        lambda asked: anthropic(404, "model: " + asked.model, "not_found_error"),
    ),
    "server-error": (
        lambda asked: openai(500, "The server had an error while processing your request. Sorry about that!", "server_error"),
        lambda asked: anthropic(500, "Internal server error", "api_error"),
    ),
    "overloaded": (
        lambda asked: openai(503, "The server is currently overloaded with other requests. Sorry about that!", "service_unavailable_error", "server_overloaded"),
        lambda asked: anthropic(529, "Overloaded", "overloaded_error"),
    ),
    "truncated-json": None,  # the model reaches its output limit within a tool call's arguments
    "truncated-body": None,  # the answer ends half way
    "hang": None,  # nothing is ever answered
    "drop": None,  # the connection is closed instead of an answer
}
LATER = {"no-tool-output", "tool-result-missing", "empty-error-content"}


# ---------------------------------------------------------------- the server


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, options):
        super().__init__(("127.0.0.1", 0), Handler)
        self.scripts = options.scripts
        self.log, self.lock, self.met = open(options.log, "a"), threading.Lock(), {}

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def note(self, **line):
        with self.lock:
            self.log.write(json.dumps(dict(line, at=time.time())) + "\n")
            self.log.flush()

    def meets(self, route):
        """Whether the fault still holds for this job; counts."""
        with self.lock:
            met = self.met.get((route["job"], route["fault"]), 0)
            self.met[route["job"], route["fault"]] = met + 1
            return route["times"] is None or met < route["times"]

    def script(self, name):
        if name == "done":
            return []
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError("no such script: " + name)
        with open(os.path.join(self.scripts, name + ".json"), encoding="utf-8") as file:
            return json.load(file)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.headers.get("upgrade"):  # codex asks for a web socket first; told that there is none, it goes on without
            return self.answer(*openai(426, "there are no web sockets here", "invalid_request_error"))
        models = {"object": "list", "data": [{"id": "a-model", "object": "model"}], "models": []}
        self.answer(200 if self.path.endswith("/models") else 404, models)

    do_HEAD = do_GET

    def do_POST(self):
        body = self.body()
        if body is None:
            return
        path = self.path.split("?")[0].strip("/").split("/")
        route = {"script": "done", "fault": None, "from": None, "times": None, "job": "-"}
        while path and path[0].partition("=")[0] in route:
            name, _, value = path.pop(0).partition("=")
            route[name] = int(value) if name in ("from", "times") else value
        end = "/".join(path)
        if end.endswith("count_tokens"):
            return self.answer(200, {"input_tokens": estimate(body)})
        wires = {"responses": "responses", "chat/completions": "chat", "messages": "messages"}
        wire = next((wire for tail, wire in wires.items() if end.endswith(tail)), None)
        if route["fault"] and route["fault"] not in FAULTS:
            known = ", ".join(FAULTS)
            return self.answer(*openai(400, "there is no fault %r here; there are: %s" % (route["fault"], known), "invalid_request_error"))
        if wire is None:
            return self.answer(*openai(404, "nothing is at " + self.path, "invalid_request_error"))
        self.serve(route, Asked(wire, body))

    def body(self):
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
                if len(data) > LARGEST_REQUEST:
                    break
            self.rfile.readline()
        else:
            data = self.rfile.read(min(int(self.headers.get("content-length") or 0), LARGEST_REQUEST))
        try:
            return json.loads(data)
        except ValueError:
            self.close_connection = True
            self.answer(*openai(400, "the request is not JSON", "invalid_request_error"))

    def serve(self, route, asked):
        server, fault = self.server, route["fault"]
        first = route["from"] if route["from"] is not None else int(fault in LATER)
        if fault == "rate-limit" and route["times"] is None:
            route["times"] = 1
        fault = fault if fault and asked.turn >= first and server.meets(route) else None
        line = {"job": route["job"], "wire": asked.wire, "turn": asked.turn, "model": asked.model, "fault": fault}
        line["tools"] = sorted(map(str, asked.tools))
        if fault in ("hang", "drop"):
            server.note(status=0, **line)
            self.close_connection = True
            if fault == "hang":
                OVER.wait(LONGEST_HANG)
            return
        refusal = None
        if fault and FAULTS[fault]:
            refusal = FAULTS[fault][asked.wire == "messages"](asked)
        elif asked.lacking:
            refusal = missing_output(asked, asked.lacking[0])
        elif asked.empty:
            refusal = empty_content(asked.empty)
        if refusal:
            server.note(status=refusal[0], **line)
            return self.answer(*refusal)
        said = Said(server.script(route["script"]), asked, cut=fault == "truncated-json")
        half = fault == "truncated-body"
        server.note(status=200, usage=said.usage, **line)
        if asked.stream:
            return self.events(list(EVENTS[asked.wire](asked, said)), half)
        self.answer(200, BODIES[asked.wire](asked, said), half=half)

    def answer(self, status, value, headers=None, half=False):
        data = json.dumps(value).encode()
        data = data[: len(data) // 2] if half else data
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def events(self, events, half):
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for number, (name, data) in enumerate(events[: len(events) // 2] if half else events):
            if name:
                data = dict({"type": name, "sequence_number": number}, **data)
                self.wfile.write(b"event: %s\n" % name.encode())
            text = data if isinstance(data, str) else json.dumps(data)
            self.wfile.write(b"data: %s\n\n" % text.encode())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--port-file", "--log", "--scripts"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    server = Server(options)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: OVER.set())
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    # Whoever started it holds the other end of its standard input: when that closes, nobody needs it any more.
    def wait_for_the_end():
        while os.read(0, 4096):
            pass
        OVER.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    with open(options.port_file + ".new", "w") as file:
        file.write("%d\n" % server.server_address[1])
    os.replace(options.port_file + ".new", options.port_file)
    OVER.wait()
    server.shutdown()


if __name__ == "__main__":
    main()
