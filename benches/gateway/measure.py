"""Takes turns: every subject once a round, CPU time of its processes read around each run."""

import platform
import statistics
import time

from . import procfs
from .load import drive
from .tools import Failed, progress

WARM_UP_SECONDS = 1


def measure(bench, groups):
    options = bench.options
    runs = []
    for group in groups:
        for subject in group.subjects:
            progress(f"{group.title}: warming up {subject.name}")
            warm = drive(bench, subject, WARM_UP_SECONDS)
            if warm["errors"] or not warm["requests"]:
                raise Failed(f"{subject.name} does not answer: {warm}, see {bench.folder}")
            settle(subject)
        for number in range(options.rounds):
            # Another one begins each round, so that none always follows the same.
            first = number % len(group.subjects)
            for subject in group.subjects[first:] + group.subjects[:first]:
                progress(f"{group.title}: round {number + 1} of {options.rounds}, {subject.name}")
                run = measure_one(bench, subject)
                runs.append({"group": group.name, "subject": subject.name, "round": number} | run)
    progress("")
    return {
        "machine": platform.platform(),
        "load_average": procfs.load_average(),
        "options": {
            "seconds": options.seconds,
            "rounds": options.rounds,
            "connections": options.connections,
            "threads": options.threads,
            "workers": options.workers,
        },
        "groups": [
            {
                "name": group.name,
                "title": group.title,
                "events": group.events,
                "request_bytes": {subject.name: len(subject.body) for subject in group.subjects},
                "rows": [row(group, subject.name, runs) for subject in group.subjects],
            }
            for group in groups
        ],
        "records": [records(process, groups, runs) for process in recording(groups)],
        "runs": runs,
    }


def measure_one(bench, subject):
    """One run. With a recording subject it lasts until the sink has everything: that is part of the price."""
    process = subject.process
    before = procfs.cpu_us(process.pids())
    seen = drive(bench, subject, bench.options.seconds)
    # Requests that wrk left open at its end are few, but they end before the CPU time is read.
    time.sleep(0.1)
    memory = procfs.rss_mib(process.pids())
    settle(subject)
    spent = procfs.less(procfs.cpu_us(process.pids()), before)
    requests = max(seen["requests"], 1)
    return seen | {
        "requests_per_second": seen["requests"] / seen["seconds"],
        "answer_bytes": seen["bytes"] / requests,
        "cpu_us": (spent["workers"] + spent["other"]) / requests,
        "cpu_workers_us": spent["workers"] / requests,
        "cpu_other_us": spent["other"] / requests,
        "rss_mib": memory,
    }


def settle(subject):
    if subject.process.records:
        subject.process.shipped()


def row(group, name, runs):
    """The medians of one subject, and the spread of its ratio to the group's first in the same round."""
    mine = [run for run in runs if run["group"] == group.name and run["subject"] == name]
    base = {
        run["round"]: run["cpu_us"]
        for run in runs
        if run["group"] == group.name and run["subject"] == group.subjects[0].name
    }

    def middle(key):
        return statistics.median(run[key] for run in mine)

    def ratio(key):
        ratios = [run[key] / base[run["round"]] for run in mine]
        return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}

    keys = ["requests_per_second", "cpu_us", "cpu_workers_us", "cpu_other_us", "p50_ms", "p99_ms", "answer_bytes"]
    return {"name": name} | {key: middle(key) for key in keys} | {
        "ratio": ratio("cpu_us"),
        "ratio_workers": ratio("cpu_workers_us"),
        "rss_mib": max(run["rss_mib"] for run in mine),
        "requests": sum(run["requests"] for run in mine),
        "errors": sum(run["errors"] for run in mine),
    }


def recording(groups):
    found = []
    for subject in (subject for group in groups for subject in group.subjects):
        if subject.process.records and subject.process not in found:
            found.append(subject.process)
    return found


def records(process, groups, runs):
    """Compares what the store has with what the gateway says it answered, and with what wrk has seen answered.

    The store has a few more than wrk has seen: wrk leaves in the middle of requests at its end, and warming up counts too.
    """
    names = {subject.name for group in groups for subject in group.subjects if subject.process is process}
    shipped = process.shipped()
    outcomes = process.stored()
    return {
        "process": process.name,
        "seen_by_wrk": sum(run["requests"] for run in runs if run["subject"] in names),
        "answered": process.counter("promptgate_requests_total"),
        "stored": sum(outcomes.values()),
        "shipped": shipped,
        "lost": process.counter("promptgate_records_total", stage="spool", result="lost"),
        "outcomes": outcomes,
    }
