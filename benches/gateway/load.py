"""Drives a subject with wrk."""

import json
import subprocess

from .tools import Failed, find

SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer {key}"
wrk.body = [==[{body}]==]

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '\\nresult {{"requests": %d, "seconds": %.6f, "bytes": %d, "errors": %d, "p50_ms": %.3f, "p99_ms": %.3f}}\\n',
        summary.requests, summary.duration / 1e6, summary.bytes,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


def start(bench, subject, seconds):
    """Starts wrk against a subject."""
    script = bench.folder / "wrk.lua"
    key = getattr(subject.process, "key", "none")
    script.write_text(SCRIPT.format(key=key, body=subject.body))
    options = bench.options
    command = [find("wrk"), "-t", str(options.threads), "-c", str(options.connections), "-d", f"{max(1, round(seconds))}s"]
    command += ["--timeout", "10s", "-s", str(script), f"http://{subject.process.address}{subject.path}"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(wrk, seconds):
    """Waits for wrk and returns what it has seen."""
    try:
        out, errors = wrk.communicate(timeout=seconds + 30)
    except BaseException:
        wrk.kill()
        wrk.wait()
        raise
    for line in out.splitlines():
        if line.startswith("result "):
            return json.loads(line.removeprefix("result "))
    raise Failed(f"wrk failed: {errors or out}")


def drive(bench, subject, seconds):
    return finish(start(bench, subject, seconds), seconds)
