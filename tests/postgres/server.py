"""A PostgreSQL of the system's packages on a folder of its own, for tests: nothing is flushed to disk.

As a program it prints its address and serves until it is told to stop; `Cluster` is for programs that do more with it.
PostgreSQL refuses to run as root: then everything runs as the user `postgres`, which the package makes.
"""

import argparse
import glob
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

USER = "promptgate"
SETTINGS = {
    "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "full_page_writes": "off",
    "max_connections": "300", "shared_buffers": "64MB",
}


def program(name):
    """The newest version's program; Debian does not put them into the path."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: int(path.split("/")[4]))
    path = found[-1] if found else shutil.which(name)
    if not path:
        raise SystemExit(f"there is no {name}: install PostgreSQL (Debian: apt-get install postgresql)")
    return path


def identity():
    """What subprocess is told so that a process is not root's."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Cluster:
    """A data folder, and the command that serves it on a port."""

    def __init__(self, folder, port):
        self.folder, self.port = pathlib.Path(folder), port
        self.data = self.folder / "data"
        self.url = f"postgres://{USER}@127.0.0.1:{port}/postgres"
        if self.data.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        subprocess.run(
            [program("initdb"), "-D", self.data, "-U", USER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"],
            check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **identity(),
        )

    def command(self):
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        return [program("postgres"), "-D", self.data, "-p", str(self.port), *settings]

    def sql(self, text, database="postgres", seconds=30):
        """Runs statements; returns the rows as tab-separated text."""
        return subprocess.run(
            [*self.psql(database), "-c", text], check=True, capture_output=True, text=True, timeout=seconds,
        ).stdout.strip()

    def psql(self, database="postgres"):
        return [
            program("psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database, "-XqAt", "-F", "\t",
            "-v", "ON_ERROR_STOP=1",
        ]

    def answers(self):
        return subprocess.run(
            [*self.psql(), "-c", "SELECT 1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30,
        ).returncode == 0


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    folder = tempfile.mkdtemp(prefix="promptgate-postgres-")
    os.chmod(folder, 0o755)
    stopped = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.append(True))
    try:
        cluster = Cluster(os.path.join(folder, "cluster"), free_port())
        server = subprocess.Popen(cluster.command(), stdin=subprocess.DEVNULL, stdout=sys.stderr, cwd="/", **identity())
        try:
            deadline = time.monotonic() + 60
            while not cluster.answers():
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("PostgreSQL did not start")
                time.sleep(0.05)
            print(cluster.url, flush=True)
            while not stopped and server.poll() is None:
                time.sleep(0.1)
        finally:
            # At once: nobody needs what is in it.
            server.send_signal(signal.SIGQUIT)
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
