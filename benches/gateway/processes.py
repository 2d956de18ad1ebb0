"""Starts and stops the mock provider, nginx and the gateways."""

import contextlib
import json
import os
import secrets
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from . import prompts
from .procfs import children
from .tools import Failed, find

START_SECONDS = 15
SHIP_SECONDS = 120

NGINX = """
daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    keepalive_requests 1000000000;
    upstream mock {{ server {mock}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
        location /stream/ {{
            proxy_pass http://mock/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""

GATEWAY = """
[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
workers = {workers}
drain = "1s"
[registry]
url = "sqlite:{folder}/registry.db"
[telemetry]
sink = "{sink}"
sqlite_path = "{folder}/telemetry.db"
spool_dir = "{folder}/spool"
durability = "process"
[[providers]]
name = "mock"
kind = "openai"
base_url = "http://{mock}/v1"
[[models]]
name = "mock-*"
targets = [{{ provider = "mock" }}]
"""


class Process:
    """A process that is stopped with the bench."""

    def __init__(self, stack, folder, name, command, environment=None):
        self.name = name
        self.log = folder / f"{name}.log"
        self.out = folder / f"{name}.out"
        with self.log.open("wb") as log, self.out.open("wb") as out:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, env=environment)
        stack.callback(self.stop)

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()

    def wait_for(self, ready, what):
        """Waits until `ready` returns something."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                raise Failed(f"{self.name} ended: {self.log.read_text()[-2000:]}")
            found = ready()
            if found:
                return found
            time.sleep(0.02)
        raise Failed(f"{self.name}: no {what} within {START_SECONDS} s, see {self.log}")

    def printed(self, before):
        """Waits for the address in a line that starts so."""

        def look():
            for line in self.out.read_text().splitlines():
                if line.startswith(before):
                    return line.split("http://")[1].split("/")[0]
            return None

        return self.wait_for(look, f"line {before!r}")

    def pids(self):
        return [self.child.pid, *children(self.child.pid)]


class Gateway(Process):
    """promptgate, with its prompts made and a key."""

    def __init__(self, stack, folder, name, binary, sink, mock, workers):
        self.folder = folder / name
        self.folder.mkdir()
        config = self.folder / "promptgate.toml"
        config.write_text(GATEWAY.format(workers=workers, folder=self.folder, sink=sink, mock=mock))
        self.token = "pga_" + secrets.token_hex(24)
        environment = os.environ | {"PROMPTGATE_ADMIN_TOKEN": self.token, "RUST_LOG": "warn"}
        super().__init__(stack, folder, name, [binary, "serve", "--config", config], environment)
        self.address = self.printed("data plane")
        self.control = self.printed("control plane")
        self.records = sink != "none"
        self.wait_for(lambda: self.get("/readyz"), "/readyz")
        prompts.create(self)
        self.key = self.call("POST", "/api/v1/keys", {"name": "bench"})["key"]

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.control}{path}", timeout=10) as answer:
                return answer.read().decode()
        except urllib.error.URLError:
            return None

    def call(self, method, path, body, address=None, token=None):
        """Sends JSON (to the control plane, unless told otherwise) and returns JSON."""
        headers = {"authorization": f"Bearer {token or self.token}", "content-type": "application/json"}
        url = f"http://{address or self.control}{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Failed(f"{method} {path}: {error.code} {error.read().decode()[:500]}") from error

    def counter(self, family, **labels):
        """Adds up the samples of a family that have these labels."""
        total = 0.0
        for line in (self.get("/metrics") or "").splitlines():
            if line.startswith((family + "{", family + " ")) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return int(total)

    def shipped(self):
        """Waits until the sink has all records, and returns how many."""
        deadline = time.monotonic() + SHIP_SECONDS
        while time.monotonic() < deadline:
            kept = self.counter("promptgate_records_total", stage="spool", result="kept")
            stored = self.counter("promptgate_records_total", stage="ship", result="stored")
            if kept == stored:
                return stored
            time.sleep(0.1)
        raise Failed(f"{self.name}: {kept - stored} records not shipped within {SHIP_SECONDS} s, see {self.log}")

    def stored(self):
        """Counts the rows by outcome."""
        path = self.folder / "telemetry.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
            return dict(store.execute("SELECT outcome, count(*) FROM exchanges GROUP BY outcome"))


class Bench:
    """All processes; a context that ends them."""

    def __init__(self, folder: Path, binary: Path, options):
        self.folder, self.binary, self.options = folder, binary, options
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()

    def start(self):
        folder, workers = self.folder, self.options.workers
        command = [self.binary, "mock-provider", "--listen", "127.0.0.1:0"]
        mock = Process(self.stack, folder, "mock", command)
        self.mock = mock.printed("mock provider")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(workers=workers, folder=folder, mock=self.mock, port=port))
        command = [find("nginx"), "-e", folder / "nginx-error.log", "-p", folder, "-c", config]
        self.nginx = Process(self.stack, folder, "nginx", command)
        self.nginx.address = f"127.0.0.1:{port}"
        self.nginx.records = False
        self.nginx.wait_for(lambda: accepts(port) and len(self.nginx.pids()) > workers, "connection")
        self.off = self.gateway("gateway-off", self.binary, "none")
        self.sqlite = self.gateway("gateway-sqlite", self.binary, "sqlite")
        self.older_off = self.older_sqlite = None
        if self.options.baseline:
            older = self.options.baseline.resolve()
            self.older_off = self.gateway("older-off", older, "none")
            self.older_sqlite = self.gateway("older-sqlite", older, "sqlite")

    def gateway(self, name, binary, sink):
        return Gateway(self.stack, self.folder, name, binary, sink, self.mock, self.options.workers)


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
