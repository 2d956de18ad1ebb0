"""The processes of a scenario: the gateway, the mock provider, the real ClickHouse engine. All on loopback, on free ports.

Each is started with its output in files, and ended by its process id; `Stage` ends what a scenario left running.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
START_SECONDS = 60
STOP_SECONDS = 90
TOKEN = "pga_fault_injection_token_0123456789"
PROVIDER_KEY = "sk-provider-5f0c7a9e31d24b68"
PROVIDER_KEY_ENV = "FAULTS_PROVIDER_KEY"


class Failed(Exception):
    """A scenario cannot go on."""


class Skipped(Exception):
    """A case cannot be had on this machine; the text says why."""


def until(what, probe, seconds=30.0, pause=0.05):
    """Waits until `probe` returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(pause)
    return found


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def http(method, url, body=None, headers=None, seconds=60):
    """Sends a request; returns status and body, also of an error."""
    request = urllib.request.Request(url, body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class Process:
    """One of ours, with its standard output and error in files."""

    def __init__(self, stage, name, command, environment=None, **identity):
        self.name = name
        number = next(stage.numbers)
        self.out = stage.folder / f"{number:03}-{name}.out"
        self.err = stage.folder / f"{number:03}-{name}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.child = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env=os.environ | (environment or {}), cwd=stage.folder, **identity,
            )
        stage.processes.append(self)

    @property
    def pid(self):
        return self.child.pid

    def running(self):
        return self.child.poll() is None

    def log(self):
        return self.err.read_text(errors="replace")

    def printed(self, before):
        """Waits for a line that begins so, and returns the host and port of the address in it."""

        def look():
            for line in self.out.read_text().splitlines(keepends=True):
                if line.startswith(before) and line.endswith("\n"):
                    return line.split("http://")[1].strip().split("/")[0]
            if not self.running():
                raise Failed(f"{self.name} ended with {self.child.returncode}: {self.log()[-2000:]}")
            return None

        return until(f"{self.name} prints {before!r}", look, START_SECONDS, 0.01)

    def kill(self):
        """`kill -9`."""
        if self.running():
            self.child.kill()
        self.child.wait()

    def terminate(self):
        self.child.send_signal(signal.SIGTERM)

    def ended(self, seconds=STOP_SECONDS):
        """Waits for the end; returns the exit code."""
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} did not end within {seconds} s: {self.log()[-2000:]}") from None


class Mock(Process):
    """`promptgate mock-provider`, which demands the provider's key."""

    def __init__(self, stage):
        command = [stage.binary, "mock-provider", "--listen", "127.0.0.1:0", "--require-key", PROVIDER_KEY]
        super().__init__(stage, "mock", command)
        self.address = self.printed("mock provider")
        self.url = f"http://{self.address}/v1"

    def stats(self):
        return json.loads(http("GET", f"http://{self.address}/__mock/stats")[1])


class ClickHouse(Process):
    """The real engine behind its HTTP interface (tests/clickhouse/server.py), with a data folder of its own."""

    def __init__(self, stage, data, port):
        command = [sys.executable, ROOT / "tests/clickhouse/server.py", "--data", data, "--port", port]
        super().__init__(stage, "clickhouse", command)
        self.data = data
        self.address = self.printed("http://")
        self.url = f"http://{self.address}"

    def fault(self, **order):
        assert http("POST", f"{self.url}/__fault", json.dumps(order).encode())[0] == 200

    def stats(self):
        return json.loads(http("GET", f"{self.url}/__stats")[1])

    def sql(self, text, database="default"):
        """Runs a query; returns its answer as tab-separated text."""
        url = f"{self.url}/?{urllib.parse.urlencode({'database': database})}"
        status, body = http("POST", url, text.encode(), seconds=300)
        if status != 200:
            raise Failed(f"{text}: {body.decode(errors='replace')[:500]}")
        return body.decode(errors="replace").rstrip("\n")


CONFIG = """
[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
workers = 2
node = "{name}"
drain = "{drain}"
[registry]
url = "{registry}"
poll = "{poll}"
snapshot_path = "{folder}/registry-snapshot"
[telemetry]
sink = "{sink}"
sqlite_path = "{folder}/telemetry.db"
spool_dir = "{spool}"
seal_after = "{seal_after}"
{telemetry}
[telemetry.clickhouse]
url = "{clickhouse}"
database = "{database}"
[[providers]]
name = "mock"
kind = "openai"
base_url = "{provider}"
api_key_env = "{key_env}"
[providers.timeouts]
idle = "{idle}"
[[models]]
name = "mock-*"
targets = [{{ provider = "mock" }}]
"""


class Gateway:
    """`promptgate serve` with a folder of its own; starts as often as one likes on the same data."""

    def __init__(self, stage, name, clickhouse="http://127.0.0.1:1", **settings):
        self.stage, self.name = stage, name
        self.folder = stage.folder / name
        self.folder.mkdir()
        self.spool = pathlib.Path(settings.pop("spool", self.folder / "spool"))
        self.database = name.replace("-", "_")
        values = {
            "drain": "10s", "sink": "clickhouse", "seal_after": "200ms", "telemetry": "", "idle": "60s",
            "provider": stage.mock.url, "log": "info", "clickhouse": clickhouse, "folder": self.folder, "spool": self.spool,
            "registry": f"sqlite:{self.folder}/registry.db", "poll": "1s", "name": name,
            "database": self.database, "key_env": PROVIDER_KEY_ENV, "prefix": [],
        } | settings
        self.prefix, self.log_level = values.pop("prefix"), values.pop("log")
        self.config = self.folder / "gateway.toml"
        self.config.write_text(CONFIG.format(**values))
        self.process, self.key = None, None

    def spawn(self):
        """Starts the process without waiting for anything."""
        environment = {
            PROVIDER_KEY_ENV: PROVIDER_KEY, "PROMPTGATE_ADMIN_TOKEN": TOKEN, "RUST_LOG": self.log_level, "NO_COLOR": "1",
        }
        command = [*self.prefix, self.stage.binary, "serve", "--config", self.config]
        self.process = Process(self.stage, self.name, command, environment)
        return self.process

    def start(self):
        self.spawn()
        self.address = self.process.printed("data plane")
        self.control = self.process.printed("control plane")
        if self.key is None:
            self.key = self.admin("POST", "/keys", {"name": "faults"})["key"]
        return self

    def admin(self, method, path, body=None):
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        status, answer = http(method, f"http://{self.control}/api/v1{path}", data, headers)
        if status >= 300:
            raise Failed(f"{method} {path}: {status} {answer.decode()[:500]}")
        return json.loads(answer)

    def ready(self):
        """The status of /readyz, 0 if nobody answers."""
        try:
            return http("GET", f"http://{self.control}/readyz", seconds=5)[0]
        except OSError:
            return 0

    def metrics(self):
        return http("GET", f"http://{self.control}/metrics")[1].decode()

    def metric(self, family, **labels):
        """Adds up the samples of a family that have these labels."""
        total = 0.0
        for line in self.metrics().splitlines():
            if line.startswith((family + "{", family + " ")) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return int(total)

    def records(self, stage, result):
        return self.metric("promptgate_records_total", stage=stage, result=result)

    def segments(self):
        """The segment files that wait to be shipped, with those being written."""
        return sorted(path for path in self.spool.glob("*/*.seg") if path.parent.name not in ("pool", "dead"))

    def logs(self):
        """Everything that processes of this gateway have logged."""
        return "".join(p.log() for p in self.stage.processes if p.name == self.name)

    def log_line(self, text):
        """The first logged line that holds a text, without its time."""
        for line in self.logs().splitlines():
            if text in line:
                return line.split(" ", 1)[1].strip()
        return None

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.ended()


class Stage:
    """A folder, the mock provider and a ClickHouse that a scenario plays on. A context that ends everything."""

    def __init__(self, binary, keep):
        self.binary, self.keep = binary, keep
        self.processes = []
        self.numbers = iter(range(1, 1_000_000))

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="promptgate-faults-"))
        # Gateways of another user come in here too.
        self.folder.chmod(0o755)
        self.undo = contextlib.ExitStack()
        try:
            self.port = free_port()
            self.mock = Mock(self)
            self.clickhouse = None
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def start_clickhouse(self):
        """Starts the engine; again on the same data and port if it ran before."""
        self.clickhouse = ClickHouse(self, self.folder / "clickhouse", self.port)
        return self.clickhouse

    @property
    def clickhouse_url(self):
        """Where the engine is, or will be."""
        return f"http://127.0.0.1:{self.port}"

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.kill()
        self.undo.close()
        if self.keep:
            print(f"   kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
