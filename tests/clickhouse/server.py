"""ClickHouse for tests: the real engine behind its HTTP interface, in one process.

The engine is `chdb-core` from PyPI (ClickHouse 26 in process, a 180 MB wheel); the rest is the standard library.

    python3 -m venv /tmp/promptgate-venv
    /tmp/promptgate-venv/bin/pip install --no-deps -r tests/clickhouse/requirements.txt
    /tmp/promptgate-venv/bin/python tests/clickhouse/server.py --data /tmp/ch --port 0

`tests/run` does that. Without `--data` the data is in a temporary folder, removed at the end. With `--until-eof` the
server ends with its standard input, and so with the test that started it, however that ends.

It prints `http://127.0.0.1:PORT` on standard output once it answers. `kill -9` and another start on the same data are
fine; one data folder serves one process at a time (a lock says so).

What it does as the real server does:

- `GET /ping`; `GET|POST /?query=…&database=…`: the query in the URL, the body, or both (`INSERT … FORMAT x` in the URL
  and data in the body); forms (multipart) for queries with parameters; `param_<name>`; chunked bodies; keep-alive.
- Any setting as a URL parameter, valid for that request alone; unknown ones are refused (code 115).
- Every input and output format of the engine; `default_format` and `X-ClickHouse-Format`.
- Bodies with `Content-Encoding: gzip`, `zstd`, `lz4`, `br` or `xz`. ClickHouse's own blocks (`decompress=1`) are
  answered with a clear 501: the gateway sends none.
- Users by `X-ClickHouse-User`/`-Key`, basic authentication, or `user=&password=`.
- Errors: the engine's message, `X-ClickHouse-Exception-Code`, and the status the real server chooses for the code.
- `X-ClickHouse-Summary`, `X-ClickHouse-Query-Id`; one statement a request.

With `--cluster NAME` the engine knows a cluster of that name, whose only server it is itself, with the macros `{shard}` and
`{replica}`: Distributed tables work. It has no keeper, so two things are left out of statements: `ON CLUSTER`, and what
makes an engine replicated (its table is a plain one then, with a window for tokens of its own).

What it does not do: answers are not compressed and not streamed, and a client that leaves does not stop its query.

Faults, by `POST /__fault` with JSON, each replacing the value it had:

    {"down": true}                 every connection is closed without an answer, until {"down": false}
    {"error": 3, "code": 241}      the next 3 inserts fail with that code (default 241, memory limit); nothing is stored
    {"lose_ack": 2}                the next 2 inserts are executed, then the connection is closed
    {"drop": 2}                    the next 2 inserts are read, not executed, and the connection is closed
    {"slow": 1.5, "inserts": 2}    the next 2 inserts begin after 1.5 s (default: all until {"slow": 0})

`"match": "text"` beside them limits them to inserts whose query or database holds the text, so that tests with a
database each do not meet each other's faults; "down" knows no match. `GET /__stats` counts requests, inserts, rows
and bytes of insert bodies, errors and faults; `POST /__reset` sets counts and faults back.
"""

import argparse
import base64
import email.parser
import email.policy
import json
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from chdb.state.sqlitelike import Connection

# URL parameters of the HTTP interface itself; any other is a setting.
RESERVED = {
    "query", "database", "default_format", "user", "password", "query_id", "session_id", "session_check",
    "session_timeout", "compress", "decompress", "wait_end_of_query", "buffer_size", "stacktrace", "role", "quota_key",
    "close_session",
}
# Statuses of src/Server/HTTP/exceptionCodeToHTTPStatus.cpp, for the codes a client meets.
STATUS = {
    194: 401, 192: 403, 193: 403, 497: 403, 516: 403,
    6: 400, 26: 400, 27: 400, 33: 400, 36: 400, 38: 400, 41: 400, 53: 400, 62: 400, 69: 400, 72: 400, 117: 400,
    131: 400, 43: 400, 44: 400, 57: 500, 82: 500,
    16: 404, 46: 404, 47: 404, 50: 404, 56: 404, 60: 404, 81: 404, 115: 404,
    48: 501, 223: 413, 396: 413, 209: 503, 439: 503,
}
ENCODINGS = {"gzip": "gzip", "zstd": "zstd", "lz4": "lz4", "br": "br", "xz": "xz", "deflate": "deflate"}
FORMAT_AT_END = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
SETTINGS_AT_END = re.compile(r"\bSETTINGS\s+.*$", re.IGNORECASE | re.DOTALL)
QUOTED = re.compile(r"'(?:[^'\\]|\\.|'')*'|`[^`]*`|\"[^\"]*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)


class Refusal(Exception):
    """An error with ClickHouse's code for it."""

    def __init__(self, code, message, status=None):
        super().__init__(f"Code: {code}. DB::Exception: {message}")
        self.code, self.status = code, status or STATUS.get(code, 500)


class Faults:
    """What is to go wrong, and what has happened; shared by all threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.reset()

    def reset(self):
        with self.lock:
            self.down = False
            self.planned = {}
            self.counts = {"requests": 0, "inserts": 0, "insert_bytes": 0, "rows": 0, "errors": 0, "faults": 0}

    def count(self, **more):
        with self.lock:
            for name, amount in more.items():
                self.counts[name] += amount

    def plan(self, order):
        with self.lock:
            if "down" in order:
                self.down = bool(order["down"])
            for kind in ("error", "lose_ack", "drop", "slow"):
                if kind not in order:
                    continue
                left = order.get("inserts", 1 << 30) if kind == "slow" else order[kind]
                self.planned[kind] = {"left": left if order[kind] else 0, "order": order}

    def take(self, kind, where):
        """The order for this insert, if there is one of this kind; uses it up by one."""
        with self.lock:
            plan = self.planned.get(kind)
            if not plan or plan["left"] <= 0 or plan["order"].get("match", "") not in where:
                return None
            plan["left"] -= 1
            self.counts["faults"] += 1
            return plan["order"]


# A cluster of one server: itself, since host and port are its own.
CLUSTER = """<clickhouse>
  <tcp_port>9000</tcp_port>
  <macros><cluster>{name}</cluster><shard>01</shard><replica>r1</replica></macros>
  <remote_servers><{name}><shard><internal_replication>true</internal_replication>
    <replica><host>127.0.0.1</host><port>9000</port></replica></shard></{name}></remote_servers>
</clickhouse>
"""


def without_keeper(sql):
    """A statement as one server without a keeper can run it."""
    sql = re.sub(r" ON CLUSTER '[^']*'", "", sql)
    sql = re.sub(r"ENGINE = Replicated(\w*MergeTree)\([^)]*\)", r"ENGINE = \1", sql)
    return re.sub(
        r"\breplicated_deduplication_window = (\d+), replicated_deduplication_window_seconds = \d+",
        r"non_replicated_deduplication_window = \1", sql)


class Engine:
    """The engine on one folder. Each request has a connection of its own (1.3 ms), and so its own settings."""

    def __init__(self, folder, scratch, cluster=None):
        self.scratch, self.cluster = scratch, cluster
        self.folder = folder
        if cluster:
            config = os.path.join(scratch, "cluster.xml")
            with open(config, "w") as file:
                file.write(CLUSTER.format(name=cluster))
            self.folder = f"{folder}?config-file={config}"
        # Keeps the engine loaded; connections come and go.
        self.keep = Connection(self.folder)
        self.version = self.keep.query("SELECT version()", "TSV").bytes().decode().strip()

    def run(self, sql, settings, database, fmt, params, body):
        if self.cluster:
            sql = without_keeper(sql)
        connection = Connection(self.folder)
        try:
            if database:
                connection.query(f"USE {quote_name(database)}", "Null")
            if settings:
                pairs = ", ".join(f"{name} = {quote(value)}" for name, value in settings.items())
                connection.query(f"SET {pairs}", "Null")
            if body is None:
                return connection.query(sql, fmt, params=params or None)
            with tempfile.NamedTemporaryFile(dir=self.scratch) as file:
                file.write(body[0])
                file.flush()
                return connection.query(from_file(sql, file.name, body[1]), fmt, params=params or None)
        finally:
            connection.close()


def quote(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_name(name):
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def from_file(sql, path, compression):
    """`INSERT INTO t (…) [SETTINGS …] FORMAT x` with its data in a file: one statement, as one body is."""
    found = FORMAT_AT_END.search(sql)
    if not found:
        raise Refusal(62, "an INSERT with a body needs FORMAT at its end. (SYNTAX_ERROR)")
    head, settings = sql[: found.start()].rstrip(), ""
    if late := SETTINGS_AT_END.search(head):
        head, settings = head[: late.start()].rstrip(), late.group(0)
    packed = f" COMPRESSION '{compression}'" if compression else ""
    return f"{head} FROM INFILE {quote(path)}{packed} {settings} FORMAT {found.group(1)}"


def is_insert(sql):
    return re.match(r"\s*(?:--[^\n]*\n\s*)*INSERT\b", sql, re.IGNORECASE) is not None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ClickHouse-test"
    # Replies are written whole; without this each waits 40 ms for an acknowledgement.
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        body = self.read_body()
        if body is None:
            self.close_connection = True
            return
        self.answer(body)

    def read_body(self):
        """The whole body, or None if the client left in the middle of it."""
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            return body if len(body) == length else None
        body = bytearray()
        while True:
            line = self.rfile.readline().split(b";")[0].strip()
            if not line:
                return None
            size = int(line, 16)
            chunk = self.rfile.read(size + 2)
            if len(chunk) < size + 2:
                return None
            if size == 0:
                return bytes(body)
            body += chunk[:size]

    def answer(self, body):
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qsl(url.query, keep_blank_values=True)
        faults = self.server.faults
        if url.path == "/__fault":
            faults.plan(json.loads(body))
            return self.reply(200, b"{}\n")
        if url.path == "/__reset":
            faults.reset()
            return self.reply(200, b"{}\n")
        if url.path == "/__stats":
            with faults.lock:
                return self.reply(200, json.dumps(faults.counts).encode() + b"\n")
        if faults.down:
            return self.hang_up()
        if url.path == "/ping":
            return self.reply(200, b"Ok.\n")
        if url.path != "/" or (not query and not body):
            return self.reply(200 if url.path == "/" else 404, b"Ok.\n" if url.path == "/" else b"no such page\n")
        faults.count(requests=1)
        try:
            self.execute(dict(query), body)
        except Refusal as refusal:
            self.fail(refusal)
        except Exception as error:  # The engine's errors are of no common class.
            text = str(error)
            found = re.match(r"Code: (\d+)\.", text)
            code = int(found.group(1)) if found else 1001
            refusal = Refusal(code, "", None)
            refusal.args = (text,)
            self.fail(refusal)

    def execute(self, url, body):
        self.authenticate(url)
        params = {name[6:]: value for name, value in url.items() if name.startswith("param_")}
        settings = {n: v for n, v in url.items() if n not in RESERVED and not n.startswith("param_")}
        if url.get("decompress") == "1":
            raise Refusal(48, "this test server reads no native compressed blocks. (NOT_IMPLEMENTED)")
        content_type = self.headers.get("Content-Type", "")
        if content_type.startswith("multipart/form-data"):
            fields = form(content_type, body)
            params.update({n[6:]: v for n, v in fields.items() if n.startswith("param_")})
            url = {**url, "query": url.get("query", "") + fields.get("query", "")}
            body = b""
        sql, data = url.get("query", ""), None
        encoding = ENCODINGS.get(self.headers.get("Content-Encoding", ""))
        if sql and is_insert(sql) and FORMAT_AT_END.search(sql):
            data = (body, encoding)
        elif body:
            sql = (sql + "\n" if sql else "") + body.decode("utf-8", "surrogateescape")
        if re.search(r";\s*\S", QUOTED.sub("", sql)):
            raise Refusal(62, "Syntax error: Multi-statements are not allowed. (SYNTAX_ERROR)")
        if self.command == "GET" and not re.match(r"\s*(SELECT|WITH|SHOW|DESC|EXISTS|EXPLAIN)", sql, re.IGNORECASE):
            raise Refusal(164, "Cannot execute query in readonly mode, use POST. (READONLY)")
        fmt = self.headers.get("X-ClickHouse-Format") or url.get("default_format") or "TabSeparated"
        database = url.get("database") or self.headers.get("X-ClickHouse-Database", "")
        inserts = is_insert(sql)
        where = f"{database} {sql}"
        if inserts and not self.before_insert(where, len(body)):
            return
        result = self.server.engine.run(sql, settings, database, fmt, params, data)
        if inserts:
            self.server.faults.count(rows=result.rows_written())
            if self.server.faults.take("lose_ack", where):
                return self.hang_up()
        summary = {
            "read_rows": str(result.rows_read()), "read_bytes": str(result.bytes_read()),
            "written_rows": str(result.rows_written()), "written_bytes": str(result.bytes_written()),
            "total_rows_to_read": "0", "result_rows": str(result.rows_read()), "result_bytes": str(result.bytes_read()),
            "elapsed_ns": str(int(result.elapsed() * 1e9)),
        }
        headers = {
            "X-ClickHouse-Summary": json.dumps(summary, separators=(",", ":")),
            "X-ClickHouse-Query-Id": url.get("query_id") or str(uuid.uuid4()),
            "X-ClickHouse-Format": fmt,
            "X-ClickHouse-Timezone": "UTC",
        }
        self.reply(200, b"" if inserts else result.bytes(), headers)

    def before_insert(self, where, size):
        """Meets the faults planned for an insert; False if it is over already."""
        faults = self.server.faults
        faults.count(inserts=1, insert_bytes=size)
        if order := faults.take("slow", where):
            time.sleep(order["slow"])
        if order := faults.take("error", where):
            raise Refusal(order.get("code", 241), "a fault that was asked for. (FAULT)")
        if faults.take("drop", where):
            self.hang_up()
            return False
        return True

    def authenticate(self, url):
        user = self.headers.get("X-ClickHouse-User") or url.get("user")
        password = self.headers.get("X-ClickHouse-Key") or url.get("password")
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            user, _, password = base64.b64decode(token).decode().partition(":")
        if (user or "default", password or "") != self.server.credentials:
            name = user or "default"
            raise Refusal(516, f"{name}: Authentication failed: password is incorrect, or there is no user with such "
                               "name. (AUTHENTICATION_FAILED)")

    def fail(self, refusal):
        self.server.faults.count(errors=1)
        version = self.server.engine.version
        text = f"{refusal} (version {version} (official build))\n"
        self.reply(refusal.status, text.encode(), {"X-ClickHouse-Exception-Code": str(refusal.code)})

    def reply(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self):
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def form(content_type, body):
    """The fields of a multipart form."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    fields = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        fields[name] = part.get_payload(decode=True).decode("utf-8", "surrogateescape")
    return fields


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        # A client that left is no news.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def main():
    parser = argparse.ArgumentParser(description="The real ClickHouse engine behind its HTTP interface, for tests.")
    parser.add_argument("--data", help="folder of the data; made if it is not there (default: a temporary one)")
    parser.add_argument("--port", type=int, default=0, help="0: any free one, printed")
    parser.add_argument("--user", default="default")
    parser.add_argument("--password", default="")
    parser.add_argument("--cluster", metavar="NAME", help="the engine is the only server of this cluster")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clickhouse-bodies-") as scratch:
        data = os.path.abspath(args.data or os.path.join(scratch, "data"))
        os.makedirs(data, exist_ok=True)
        server = Server(("127.0.0.1", args.port), Handler)
        server.engine = Engine(data, scratch, args.cluster)
        server.faults = Faults()
        server.credentials = (args.user, args.password)
        # `shutdown` waits for the loop it is called in, so it needs a thread.
        stop = lambda *_: threading.Thread(target=server.shutdown).start()
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        if args.until_eof:
            threading.Thread(target=lambda: (sys.stdin.buffer.read(), server.shutdown()), daemon=True).start()
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever(poll_interval=0.1)
        server.engine.keep.close()


if __name__ == "__main__":
    main()
