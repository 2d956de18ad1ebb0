"""Counts system calls a request, with perf's tracepoints: they slow the process little, unlike strace, under which
fewer events would be found ready at a time."""

import os
import signal
import subprocess

from .load import finish, start
from .measure import WARM_UP_SECONDS, drive, settle
from .tools import Failed, find, progress

CALLS = (
    "read readv recvfrom recvmsg write writev sendto sendmsg pwrite64 pread64 epoll_wait epoll_pwait epoll_ctl futex "
    "accept4 close connect socket ioctl fcntl timerfd_settime fdatasync mmap munmap madvise sched_yield"
).split()
SECONDS = 3


def count(bench, groups):
    tables = []
    for group in groups:
        rows = []
        for subject in group.subjects:
            progress(f"{group.title}: {subject.name}")
            drive(bench, subject, WARM_UP_SECONDS)
            settle(subject)
            rows.append({"name": subject.name} | count_one(bench, subject))
        tables.append({"title": group.title, "events": group.events, "rows": rows})
    progress("")
    return tables


def count_one(bench, subject):
    """Counts in the data plane's threads only: all of nginx's, the gateway's workers."""
    events = ["raw_syscalls:sys_enter"] + [f"syscalls:sys_enter_{call}" for call in CALLS]
    out = bench.folder / "perf.txt"
    command = [find("perf"), "stat", "-x", ";", "-o", str(out), "-t", ",".join(map(str, threads(subject.process)))]
    for event in events:
        command += ["-e", event]
    perf = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        seen = finish(start(bench, subject, SECONDS), SECONDS)
    finally:
        perf.send_signal(signal.SIGINT)
        _, errors = perf.communicate(timeout=15)
    settle(subject)
    counts = {}
    for line in out.read_text().splitlines():
        cells = line.split(";")
        if len(cells) > 2 and cells[0].isdigit():
            counts[cells[2].split("sys_enter_")[-1]] = int(cells[0]) / seen["requests"]
    total = counts.pop("raw_syscalls:sys_enter", None)
    if not total:
        raise Failed(f"perf counts no system calls here (root and tracepoints are needed): {errors.decode()[-500:]}")
    return {"total": total, "calls": counts, "errors": seen["errors"]}


def threads(process):
    found = []
    for pid in process.pids():
        tasks = os.listdir(f"/proc/{pid}/task")
        names = {task: open(f"/proc/{pid}/task/{task}/comm").read() for task in tasks}
        workers = [task for task, name in names.items() if name.startswith("worker-")]
        found += workers or tasks
    return found


def show(tables):
    for table in tables:
        print(f"\n{table['title']}: system calls a {'stream' if table['events'] else 'request'}, data plane threads only")
        for row in table["rows"]:
            calls = sorted(row["calls"].items(), key=lambda call: -call[1])
            listed = ", ".join(f"{name} {number:.2f}" for name, number in calls if number >= 0.005)
            print(f"  {row['name']:24} {row['total']:7.2f}   {listed}")
