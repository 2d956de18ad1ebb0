"""The real processes of these tests: gateway, mock provider and Prometheus, each in a folder that goes away with it."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

START = 60
STOP = 30
CONDITION = 60
#: Every child of this run.
RUNNING = []


def wait_for(what, condition, seconds=CONDITION):
    """Returns the condition's value once it is true; fails when that takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s in vain for {what}", pytrace=False)
        time.sleep(0.05)


class Refused(Exception):
    """An HTTP answer that is not 2xx."""

    def __init__(self, what, status, text):
        super().__init__(f"{what}: {status} {text}")
        self.status = status


def http(method, url, body=None, headers=None):
    """Body and headers of the answer; what is not bytes goes as JSON."""
    headers = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers["content-type"] = "application/json"
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read(), response.headers
    except urllib.error.HTTPError as error:
        raise Refused(f"{method} {url}", error.code, error.read().decode(errors="replace")) from None


def binary():
    # PROMPTGATE_BINARY is what tests/run sets for the clients.
    path = os.environ.get("PROMPTGATE_BINARY") or os.environ.get("PROMPTGATE_BIN")
    if not path:
        pytest.fail(
            "PROMPTGATE_BINARY is not set: cargo build, then set it to the path of target/debug/promptgate",
            pytrace=False,
        )
    return os.path.abspath(path)


def tool(name):
    """Path of one of Prometheus' programs; Debian's package has both."""
    path = shutil.which(name)
    if not path:
        pytest.fail(f"{name} is not installed: apt-get install --no-install-recommends prometheus", pytrace=False)
    return path


class Process:
    """A child process with its output in files; SIGTERM must end it with 0."""

    def __init__(self, name, command, folder):
        self.name = name
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err}
            self.process = subprocess.Popen(command, cwd=folder, **streams)
        RUNNING.append(self.process)

    def log(self):
        return self.out.read_text() + self.err.read_text()

    def check_alive(self):
        if self.process.poll() is not None:
            pytest.fail(f"{self.name} ended with {self.process.returncode}:\n{self.log()}", pytrace=False)

    def value(self, label):
        """What it prints after the label."""

        def find():
            for line in self.out.read_text().splitlines(keepends=True):
                if line.startswith(label) and line.endswith("\n"):
                    return line.removeprefix(label).removeprefix(":").strip()
            self.check_alive()
            return None

        return wait_for(f"{self.name} to print {label!r}", find, START)

    def stop(self):
        """Ends it; a process that does not end well is an error."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"{self.name} did not stop within {STOP} s of SIGTERM:\n{self.log()}") from None
        if code != 0 or "panicked" in self.log():
            raise RuntimeError(f"{self.name} ended with {code} after SIGTERM:\n{self.log()}")


class MockProvider(Process):
    def __init__(self, folder):
        super().__init__("mock-provider", [binary(), "mock-provider", "--listen", "127.0.0.1:0"], folder)
        self.url = self.value("mock provider").removesuffix("/v1")


class Gateway(Process):
    """A gateway with the given configuration; speaks to its own control plane."""

    def __init__(self, folder, configuration):
        path = folder / "promptgate.toml"
        path.write_text(configuration)
        super().__init__("gateway", [binary(), "serve", "--config", str(path)], folder)
        self.token = self.value("admin token (shown once, keep it)")
        self.base_url = self.value("data plane")
        self.admin_url = self.value("control plane")
        self.address = urllib.parse.urlsplit(self.base_url).netloc
        self.admin_address = urllib.parse.urlsplit(self.admin_url).netloc

    def admin(self, method, path, body=None):
        """Calls the control plane."""
        return json.loads(http(method, self.admin_url + path, body, {"authorization": f"Bearer {self.token}"})[0])

    def metrics(self):
        return http("GET", f"http://{self.admin_address}/metrics")[0].decode()

    def count(self, counter):
        """Sum of all series of a counter."""
        lines = [line for line in self.metrics().splitlines() if line.startswith(counter + "{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


class Prometheus(Process):
    """Prometheus that scrapes the given address each second."""

    def __init__(self, folder, target):
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "promptgate", "static_configs": [{"targets": [target]}]}],
        }
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps(config))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        arguments = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"]
        super().__init__(
            "prometheus", [tool("prometheus"), *arguments, f"--web.listen-address=127.0.0.1:{port}"], folder
        )

        def ready():
            self.check_alive()
            try:
                return http("GET", self.url + "/-/ready")
            except (OSError, Refused):
                return None

        wait_for("Prometheus to be ready", ready, START)

    def api(self, path, **parameters):
        """Calls its HTTP API and returns `data`."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        return json.loads(http("GET", f"{self.url}/api/v1/{path}?{query}")[0])["data"]

    def number(self, expression):
        """The value of an expression with one result, or 0."""
        result = self.api("query", query=expression)["result"]
        return float(result[0]["value"][1]) if result else 0.0


def temporary_folder(factory, name):
    return pathlib.Path(factory.mktemp(name))
