"""Secrets in headers, bodies and provider errors: in no spool, table, log, metric or error when the policy says so.

Everything that a gateway leaves is searched: its folder (spool with recycled files, registry), its log at `debug`, its
metrics, its answers, every table of ClickHouse as text, and the engine's data folder byte by byte. A canary that has to
be found shows that the search can find.
"""

import base64
import http.client
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from load import chat, request
from processes import PROVIDER_KEY, ROOT, TOKEN, Gateway, Skipped
from store import finish, wait_for_rows


class Secrets:
    """Planted texts by what they are; each different, none part of another."""

    def __init__(self, prefix):
        self.prefix, self.by_name = prefix, {}

    def __getitem__(self, name):
        return self.by_name.setdefault(name, f"{self.prefix}-{len(self.by_name):02}-9c1f{len(name):02}e7b0d5a4")


class Provider(BaseHTTPRequestHandler):
    """A provider that puts the key it was called with wherever it can."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        key = self.headers.get("authorization", "").removeprefix("Bearer ")
        getattr(self, asked["model"].removeprefix("mock-").replace("-", "_"))(asked, key)

    def send(self, status, body, content_type="application/json", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuses(self, asked, key):
        error = {"message": f"Incorrect API key provided: {key}. Find yours at example.com", "code": "invalid_api_key"}
        self.send(401, json.dumps({"error": error}).encode(), set_cookie=f"session={key}", x_debug_key=key,
                  x_request_id=key, www_authenticate=f"Bearer {key}")

    def breaks(self, asked, key):
        self.send(500, f"<h1>500</h1><pre>Authorization: Bearer {key}</pre>".encode(), "text/html")

    def breaks_at_length(self, asked, key):
        """Longer than what is read as a whole."""
        self.send(500, b"x" * 300_000 + key.encode() + b"y" * 300_000, "text/plain")

    def is_no_json(self, asked, key):
        self.send(200, f"not JSON: {key}".encode())

    def redirects(self, asked, key):
        self.send(302, b"", location=f"http://127.0.0.1:1/?key={key}")

    def fails_in_stream(self, asked, key):
        event = {"error": {"message": f"Incorrect API key provided: {key}", "code": "invalid_api_key"}}
        self.send(200, f"data: {json.dumps(event)}\n\n".encode(), "text/event-stream")

    def garbles_a_stream(self, asked, key):
        self.send(200, f"data: {{{key}\n\n".encode(), "text/event-stream")

    def answers(self, asked, key):
        text = asked["messages"][-1]["content"] if isinstance(asked["messages"], list) else asked["messages"]
        message = {"role": "assistant", "content": f"you said {text}"}
        if not asked.get("stream"):
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            body = {"id": "c", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
            return self.send(200, json.dumps(body | {"usage": usage}).encode())
        chunk = {"id": "c", "choices": [{"index": 0, "delta": message, "finish_reason": "stop"}]}
        self.send(200, f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode(), "text/event-stream")


#: In each record, by its session, and so in whatever holds records.
CANARY = "the-canary-sings"
FAILURES = ["refuses", "breaks", "breaks-at-length", "is-no-json", "redirects", "fails-in-stream", "garbles-a-stream"]


def run(stage, report, short):
    stage.start_clickhouse()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stage.undo.callback(server.shutdown)
    provider = f"http://127.0.0.1:{server.server_address[1]}/v1"
    full(stage, report, provider)
    metadata(stage, report, provider)
    try:
        redacted(stage, report, provider)
    except Skipped as why:
        report.skip("redaction", str(why))


def call(gateway, body, headers=None, path="/v1/chat/completions", key=None):
    headers = {"authorization": f"Bearer {key or gateway.key}", "content-type": "application/json",
               "x-promptgate-session": CANARY, **(headers or {})}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return raw(gateway.address, path, data, headers)


def raw(address, path, data, headers):
    """The whole answer, head included."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("POST", path, data, headers)
        answer = connection.getresponse()
        return repr((answer.status, answer.getheaders())).encode() + answer.read()
    except http.client.HTTPException as error:
        return repr(error).encode()
    finally:
        connection.close()


def full(stage, report, provider):
    """Content is kept, credentials never."""
    gateway = Gateway(stage, "capture_full", stage.clickhouse_url, provider=provider, log="debug").start()
    planted, answers, sent = Secrets("sk-planted"), b"", 0
    headers = {
        "x-api-key": planted["x-api-key"], "api-key": planted["api-key"], "cookie": f"session={planted['cookie']}",
        "proxy-authorization": f"Basic {base64.b64encode(planted['proxy'].encode()).decode()}",
        "openai-organization": planted["organization"], "x-custom-token": planted["custom header"],
    }
    for model in ["answers", *FAILURES]:
        for stream in (False, True):
            answers += call(gateway, chat(f"mock-{model}", stream, "hello"), headers)
            sent += 1
    wrong = {
        "a wrong key": dict(body=chat("mock-answers"), key=planted["wrong key"]),
        "a query string": dict(body=chat("mock-answers"), path=f"/v1/chat/completions?api_key={planted['query']}"),
        "no JSON": dict(body=f'{{"model": "mock-answers", {planted["broken body"]}'.encode()),
        "an unknown path": dict(body=b"{}", path=f"/v1/{planted['path']}"),
    }
    for asked in wrong.values():
        answers += call(gateway, **asked)
        sent += 1
    never = dict(planted.by_name) | {
        "the provider's key": PROVIDER_KEY, "the caller's key": gateway.key, "the admin token": TOKEN,
        "the proxy header": base64.b64encode(planted["proxy"].encode()).decode(),
    }
    search(stage, report, gateway, "capture = full", sent, never, answers)


def metadata(stage, report, provider):
    """Content is not kept at all: what the caller and the provider say are secrets as well."""
    gateway = Gateway(
        stage, "capture_metadata", stage.clickhouse_url, provider=provider, telemetry='capture = "metadata"', log="debug"
    ).start()
    planted, sent = Secrets("private"), 0
    content = {"text": "{{ secret }}", "model": "mock-answers",
               "variables": {"secret": {"type": "string", "maxLength": 40}}}
    gateway.admin("POST", "/prompts", {"id": "secret/keeper"})
    gateway.admin("POST", "/prompts/secret/keeper/versions", {"content": content, "message": "first"})
    prompt = lambda text: {"prompt": {"id": "secret/keeper", "version": 1, "variables": {"secret": text}}}
    bodies = [
        chat("mock-answers", False, planted["message"]), chat("mock-answers", True, planted["streamed message"]),
        chat("mock-answers") | {"user": planted["user"], "safety_identifier": planted["safety identifier"]},
        chat("mock-refuses", False, planted["refused message"]), chat("mock-fails-in-stream", True, planted["failed"]),
        prompt(planted["variable"]), prompt(planted["long variable"] * 3),
        {"prompt": {"id": "secret/keeper", "version": 1, "variables": {"secret": {"deep": planted["wrong type"]}}}},
        {"model": "mock-answers", "messages": planted["no list"]},
    ]
    for body in bodies:
        call(gateway, body, {"x-promptgate-unit": planted["unit header"]})
        sent += 1
    never = dict(planted.by_name) | {"the provider's key": PROVIDER_KEY, "the caller's key": gateway.key}
    # What the caller sent may come back to the caller.
    search(stage, report, gateway, "capture = metadata", sent, never, b"")


def redacted(stage, report, provider):
    """Content is kept but for what rules take out: members by name, parts by pattern, credentials always."""
    if "[telemetry.redaction]" not in (ROOT / "config/promptgate.toml").read_text():
        raise Skipped("config/promptgate.toml knows no [telemetry.redaction]")
    rules = "[telemetry.redaction]\nfields = ['password', 'iban']\npatterns = ['\\b\\d{4}-\\d{4}-\\d{4}\\b']"
    gateway = Gateway(
        stage, "capture_redacted", stage.clickhouse_url, provider=provider, telemetry=rules, log="debug").start()
    content = {"text": "{{ note }} {{ iban }}", "model": "mock-answers",
               "variables": {"note": {"type": "string"}, "iban": {"type": "string"}}}
    gateway.admin("POST", "/prompts", {"id": "secret/rules"})
    gateway.admin("POST", "/prompts/secret/rules/versions", {"content": content, "message": "first"})
    prompt = lambda note, iban: {"prompt": {"id": "secret/rules", "version": 1, "variables": {"note": note, "iban": iban}}}
    planted = Secrets("sk-live")
    never = {
        "a card number": "4929-1187-3306", "a card in a stream": "4929-1187-3307", "a card in a refused call": "4929-1187-3308",
        "a card in a variable": "4929-1187-3309", "a password": "hunter-of-seven-seas", "an iban": "DE02-secret-account",
        "a key in a message": planted["message"] + "A7xQ", "a key in a stream": planted["stream"] + "B8yR",
        "a bearer in a message": "Bearer eyJhbGciOi.J9zLkQ8w.c2VjcmV0", "the provider's key": PROVIDER_KEY,
        "the caller's key": gateway.key, "a user": "jane.doe@example.com",
    }
    sent = 0
    for text, stream in [
        (f"card {never['a card number']}", False), (f"card {never['a card in a stream']}!", True),
        (f"my key is {never['a key in a message']}", False), (f"key={never['a key in a stream']} ok?", True),
        (f"authorization: {never['a bearer in a message']}", False), (f"mine: {gateway.key}", True),
    ]:
        call(gateway, chat("mock-answers", stream, text))
        sent += 1
    for body in [
        chat("mock-refuses", False, f"card {never['a card in a refused call']}"),
        prompt(f"pay {never['a card in a variable']}", "x"),
        chat("mock-answers") | {"metadata": {"Password": never["a password"]}},
        chat("mock-answers") | {"deep": [{"iban": never["an iban"]}]},
        chat("mock-answers") | {"user": never["a user"], "metadata": {"user_id": never["a user"]}},
    ]:
        call(gateway, body)
        sent += 1
    search(stage, report, gateway, "redaction", sent, never, b"")


def search(stage, report, gateway, case, sent, never, answers):
    """Looks for each secret in each place."""
    wait_for_rows(stage.clickhouse, gateway.database, sent, 30)
    metrics = gateway.metrics().encode()
    counts = finish(report, gateway, stage.clickhouse, case)
    tables = b""
    for table in stage.clickhouse.sql("SHOW TABLES", gateway.database).split():
        if not table.endswith("_of_exchanges"):
            tables += stage.clickhouse.sql(f"SELECT * FROM {table} FORMAT JSONEachRow", gateway.database).encode()
    places = {
        "spool": folder_bytes(gateway.spool), "registry and other files": folder_bytes(gateway.folder, gateway.spool),
        "log": gateway.logs().encode(), "metrics": metrics, "answers": answers, "tables": tables,
        "the engine's files": folder_bytes(stage.clickhouse.data),
    }
    found = [(what, where) for what, secret in never.items() for where, bytes_ in places.items()
             if any(form in bytes_ for form in forms(secret)) and (what, where) not in ALLOWED]
    report.row(case=case, requests=sent, **counts.cells(), secrets=len(never), places=len(places), found=len(found),
               bytes_searched=sum(map(len, places.values())))
    report.equal(f"{case}: rows", counts.rows, sent)
    for what, where in found:
        report.check(False, f"{case}: {what} is in: {where}")
    for where in ("tables", "spool"):
        report.check(CANARY.encode() in places[where], f"{case}: the search does not find the canary in: {where}")


#: Where a secret may be: who asks for a path that is not there is told which one.
ALLOWED = {("path", "answers")}


def forms(secret):
    """How a text may be written down."""
    return {secret.encode(), urllib.parse.quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode()}


def folder_bytes(folder, but=None):
    """The bytes of all files in a folder, blocks of zeros left out."""
    zeros, out = bytes(65536), []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not (but and path.is_relative_to(but)):
            with path.open("rb") as file:
                while block := file.read(65536):
                    if block != zeros[: len(block)]:
                        out.append(block)
    return b"".join(out)
