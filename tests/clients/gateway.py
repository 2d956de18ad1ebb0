"""A real gateway with a mock provider behind it, for the tests of the clients; the standard library is enough.

As a command it runs another one with the gateway's addresses and keys in its environment:

    gateway.py node --test 'tests/clients/node/*.test.mjs'

and ends as that did, unless a process of ours did not stop as it should.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import seed

START = 30
STOP = 30
RECORD = 15


class Refused(Exception):
    """The control plane answered with an error."""


class Process:
    """One of ours: its first lines name its addresses, and SIGTERM ends it with 0."""

    def __init__(self, name, arguments, folder):
        self.name = name
        self.out = folder / f"{name}.out"
        self.err = folder / f"{name}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [binary(), *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder
            )

    def value(self, label):
        """What it prints after the label."""
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            for line in self.out.read_text().splitlines(keepends=True):
                if line.startswith(label) and line.endswith("\n"):
                    return line.removeprefix(label).removeprefix(":").strip()
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{self.log()}")
            time.sleep(0.01)
        raise RuntimeError(f"{self.name} did not print {label!r} within {START} s:\n{self.log()}")

    def log(self):
        return self.out.read_text() + self.err.read_text()

    def stop(self):
        """Ends it, and returns what was wrong with the way it ended."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"{self.name} did not stop within {STOP} s of SIGTERM:\n{self.log()}"
        if code != 0:
            return f"{self.name} ended with {code} after SIGTERM:\n{self.log()}"
        if "panicked" in self.log():
            return f"{self.name} panicked:\n{self.log()}"
        return None


class Gateway:
    """A context: both processes, seeded, in a folder of their own that goes away with them."""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="promptgate-clients-")
        folder = pathlib.Path(self._folder.name)
        self._processes = []
        try:
            mock = self._start("mock provider", ["mock-provider", "--listen", "127.0.0.1:0", "--remember"], folder)
            self.mock_url = mock.value("mock provider").removesuffix("/v1")
            config = folder / "promptgate.toml"
            config.write_text(seed.configuration(self.mock_url))
            serve = self._start("gateway", ["serve", "--config", str(config)], folder)
            self.token = serve.value("admin token (shown once, keep it)")
            self.base_url = serve.value("data plane")
            self.admin_url = serve.value("control plane")
            for prompt, content in seed.PROMPTS.items():
                self.create(prompt, *content["versions"], live=content["live"])
            self.keys = {name: self.admin("POST", "/keys", {"name": name, **key})["key"] for name, key in seed.KEYS.items()}
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_):
        problems = self._stop()
        if problems:
            raise RuntimeError("\n".join(problems))

    def _start(self, name, arguments, folder):
        process = Process(name, arguments, folder)
        self._processes.append(process)
        return process

    def _stop(self):
        problems = [process.stop() for process in reversed(self._processes)]
        self._folder.cleanup()
        return [problem for problem in problems if problem]

    def admin(self, method, path, body=None):
        """Calls the control plane."""
        return _json(method, self.admin_url + path, body, {"authorization": f"Bearer {self.token}"})

    def create(self, prompt, *versions, live):
        """Creates a prompt with its versions; `live` says which is live in which environment."""
        self.admin("POST", "/prompts", {"id": prompt})
        for content in versions:
            self.admin("POST", f"/prompts/{prompt}/versions", {"content": content, "message": "for the tests"})
        for environment, version in live.items():
            self.deploy(prompt, version, environment)

    def deploy(self, prompt, version, environment="production"):
        split = [{"variant": "control", "version": version, "weight": 100}]
        body = {"split": split, "message": "for the tests"}
        return self.admin("PUT", f"/prompts/{prompt}/deployments/{environment}", body)

    def exchange(self, exchange_id):
        """The record of an exchange, once it is there."""
        deadline = time.monotonic() + RECORD
        while True:
            try:
                return self.admin("GET", f"/exchanges/{exchange_id}")
            except Refused:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def exchanges(self, prompt, count):
        """All records of a prompt, oldest first, once there are so many."""
        deadline = time.monotonic() + RECORD
        while True:
            items = self.admin("GET", f"/exchanges?prompt={prompt}&limit=500")["items"]
            if len(items) >= count or time.monotonic() > deadline:
                assert len(items) == count, f"{len(items)} records of {prompt}, not {count}"
                return items[::-1]
            time.sleep(0.05)

    def sent_upstream(self):
        """The body that the provider got last."""
        return json.loads(self._mock("GET", "/__mock/stats")["last_request"]["body"])

    def requests_upstream(self):
        return self._mock("GET", "/__mock/stats")["requests"]

    def _mock(self, method, path):
        return _json(method, self.mock_url + path, None, {})

    def environment(self):
        """What a test in another language needs to know."""
        keys = {f"PROMPTGATE_KEY_{name.upper()}": key for name, key in self.keys.items()}
        return {
            "PROMPTGATE_BASE_URL": self.base_url,
            "PROMPTGATE_ADMIN_URL": self.admin_url,
            "PROMPTGATE_TOKEN": self.token,
            "PROMPTGATE_MOCK_URL": self.mock_url,
            "PROMPTGATE_KEY": self.keys["app"],
            **keys,
        }


def binary():
    path = os.environ.get("PROMPTGATE_BINARY")
    if not path:
        raise RuntimeError("PROMPTGATE_BINARY is not set: run tests/run clients, or set it to target/debug/promptgate")
    return os.path.abspath(path)


def _json(method, url, body, headers):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **headers}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise Refused(f"{method} {url}: {error.code} {error.read().decode()}") from None


def main(command):
    with Gateway() as gateway:
        return subprocess.run(command, env=os.environ | gateway.environment()).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
