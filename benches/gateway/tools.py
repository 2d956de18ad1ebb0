"""What the bench needs from the machine, and how to get it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"nginx": "nginx-light", "wrk": "wrk", "perf": "linux-perf"}


class Failed(Exception):
    """Something that ends the bench, with a message for its user."""


def find(tool):
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def require(tools, install):
    """Makes sure that the tools are there."""
    missing = [PACKAGES[tool] for tool in tools if not find(tool)]
    if missing and install:
        # RUNLEVEL=1 keeps Debian's scripts from starting an nginx of the system's.
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
        subprocess.run(command, env=environment, check=False)
        missing = [PACKAGES[tool] for tool in tools if not find(tool)]
    if missing:
        raise Failed(f"missing: apt-get install {' '.join(missing)} (or run with --install)")


def build():
    """Builds the release binary, and returns its path."""
    if subprocess.run(["cargo", "build", "--release", "--bin", "promptgate"], cwd=ROOT, check=False).returncode:
        raise Failed("cargo build --release failed; or name a binary with --binary")
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return ROOT / target / "release" / "promptgate"


def progress(text):
    """Shows what is going on, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def remove(folder):
    shutil.rmtree(folder, ignore_errors=True)
