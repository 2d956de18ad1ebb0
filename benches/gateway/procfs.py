"""CPU time and memory of processes, from /proc."""

import os
from pathlib import Path


def cpu_us(pids):
    """CPU time so far, in microseconds: {"workers": …, "other": …}.

    Read from schedstat, which counts nanoseconds (utime and stime count ticks of 10 ms). "workers" are the threads named
    worker-N, the gateway's data plane; everything else is "other". A process without such threads is all "workers".
    """
    spent = {"workers": 0.0, "other": 0.0}
    for pid in pids:
        threads = {}
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                name = (task / "comm").read_text().strip()
                nanoseconds = int((task / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue  # a thread that has just ended
            threads[task.name] = (name, nanoseconds / 1000)
        has_workers = any(name.startswith("worker-") for name, _ in threads.values())
        for name, microseconds in threads.values():
            kind = "workers" if name.startswith("worker-") or not has_workers else "other"
            spent[kind] += microseconds
    return spent


def less(after, before):
    return {kind: after[kind] - before[kind] for kind in after}


def rss_mib(pids):
    """Resident memory; pages that processes share count once in each."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total / 1024


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def load_average():
    return os.getloadavg()[0]
