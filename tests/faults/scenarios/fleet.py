"""Three nodes on one PostgreSQL under load: every node forward only, no mix, how soon a publish is live on the others.

Then the connections that notifications come on are killed: that costs at most the poll.
"""

import concurrent.futures

from fleet import PAIR, VERSIONS, Fleet, Watcher, milliseconds_until_live, nodes_by_name
from load import Load, percentile, request
from processes import until

POLL_MS = 1000


def run(stage, report, short):
    fleet = Fleet(stage, "fleet")
    fleet.pool = concurrent.futures.ThreadPoolExecutor(2)
    body = {"prompt": {"id": PAIR[0], "variables": {"name": "x"}}}
    calls = [request(fleet.key, body)]
    loads = [Load(node.address, calls, rate=50 if short else 150).start() for node in fleet.nodes]
    watchers = [Watcher(fleet, node) for node in fleet.nodes]

    published(fleet, report, 60 if short else 1000)
    broken(fleet, report, 3 if short else 20)

    for load in loads:
        load.stop()
    for watcher in watchers:
        watcher.stop().check(report, "under load")
    seen = sum(len(watcher.seen) for watcher in watchers)
    sent, failed = sum(load.sent for load in loads), sum(load.failed for load in loads)
    report.note(f"{sent:,} calls of the load, {failed} failed; {seen:,} answers looked at for mixes and steps back")
    for load in loads if failed else []:
        report.note(
            f"statuses {dict(load.statuses)}, unanswered {load.unanswered}, cut {len(load.cut)}, not connected {load.unconnected}"
        )
    report.equal("failed calls of the load", failed, 0)
    listed = until("all nodes are listed as current", lambda: current(fleet), 30)
    report.equal("nodes listed", len(listed), 3)
    for node in fleet.nodes:
        report.equal(f"{node.name}: promptgate_registry_up", node.metric("promptgate_registry_up"), 1)
        report.equal(f"{node.name}: lag", node.metric("promptgate_snapshot_lag_generations"), 0)
        report.equal(f"{node.name}: exit code", node.stop(), 0)


def current(fleet):
    listed = nodes_by_name(fleet.nodes[0])
    return listed if all(item["state"] == "current" for item in listed.values()) else None


def published(fleet, report, count):
    took = []
    for n in range(count):
        publisher = fleet.nodes[n % 3]
        generation = fleet.publish(publisher, n % VERSIONS + 1)
        took += milliseconds_until_live(fleet, publisher, generation)
    took.sort()
    report.row(
        case="publish to live on other nodes", publishes=count, p50_ms=percentile(took, 0.5), p99_ms=percentile(took, 0.99),
        most_ms=took[-1],
    )


def broken(fleet, report, count):
    took, ended = [], 0
    for n in range(count):
        ended += fleet.postgres.break_listeners(fleet.name)
        publisher = fleet.nodes[n % 3]
        generation = fleet.publish(publisher, n % VERSIONS + 1)
        took += milliseconds_until_live(fleet, publisher, generation)
    took.sort()
    report.row(
        case="notification connections killed before", publishes=count, p50_ms=percentile(took, 0.5),
        p99_ms=percentile(took, 0.99), most_ms=took[-1], killed=ended,
    )
    report.check(ended >= count, f"only {ended} notification connections were there to be killed")
    # A generous second for a machine that does much else.
    report.check(took[-1] <= POLL_MS + 1000, f"a killed notification connection cost {took[-1]:.0f} ms, the poll is {POLL_MS} ms")
