"""kill -9 of a publisher between any two steps of a publish: all nodes see all of it or nothing.

A transaction beside it holds a table, so that the publish stops at the first step that writes there; then the publisher is
killed, and the table let go. Others are killed at random moments, during and just after the commit.
"""

import json
import random
import subprocess
import threading
import time

from fleet import PAIR, VERSIONS, Fleet, Watcher
from processes import TOKEN, http, until

#: Where a publish of two prompts writes, in no order: it stops at each of them.
TABLES = ["meta", "deployments", "live", "deployed_versions", "prompts", "audit_head", "audit"]


def run(stage, report, short):
    fleet = Fleet(stage, "killed")
    watchers = [Watcher(fleet, node) for node in fleet.nodes[1:]]
    outcomes = {"all": 0, "nothing": 0}
    version = 1
    for n in range(1 if short else 3):
        for table in TABLES:
            version = version % VERSIONS + 1
            seen = stopped_at(fleet, report, table, version)
            report.equal(f"stopped at {table}: what is seen of it", seen, "nothing")
            outcomes[seen] += 1
    rounds = 8 if short else 60
    began = time.monotonic()
    for n in range(5):
        fleet.publish(fleet.nodes[0], n + 1)
    fleet.takes = (time.monotonic() - began) / 5
    for n in range(rounds):
        version = version % VERSIONS + 1
        outcomes[at_random(fleet, report, version)] += 1
    for watcher in watchers:
        watcher.stop()
        report.equal(f"{watcher.node.name} moved backwards", watcher.backwards(), 0)
        report.equal(f"{watcher.node.name} served a mix", sum(v != t for _, v, t in watcher.seen), 0)
    verified = fleet.nodes[1].admin("GET", "/audit/verify")
    report.check(verified["ok"], f"the audit log is broken: {verified['broken']}")
    gaps = fleet.postgres.cluster.sql(
        "SELECT m.generation - (SELECT max(generation) FROM deployments) FROM meta m", fleet.name,
    )
    report.equal("generations taken by publishes that are not there", gaps, "0")
    report.row(case="publisher killed", kills=sum(outcomes.values()), seen_whole=outcomes["all"], seen_nothing=outcomes["nothing"],
               answers_looked_at=sum(len(watcher.seen) for watcher in watchers))


def post(fleet, version):
    """Publishes in a thread of its own, whatever becomes of it."""
    body = json.dumps(fleet.deployment(version)).encode()
    url = f"http://{fleet.nodes[0].control}/api/v1/deployments"

    def work():
        try:
            http("POST", url, body, {"authorization": f"Bearer {TOKEN}"}, seconds=30)
        except OSError:
            pass

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def stopped_at(fleet, report, table, version):
    command = fleet.postgres.cluster.psql(fleet.name)
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    holder.stdin.write(f"BEGIN; LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE; SELECT 'held';\n")
    holder.stdin.flush()
    assert holder.stdout.readline().strip() == "held"
    before = state(fleet)
    thread = post(fleet, version)
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    until(f"the publisher waits for {table}", lambda: int(fleet.postgres.cluster.sql(waiting, fleet.name)) > 0)
    fleet.nodes[0].process.kill()
    holder.stdin.write("ROLLBACK;\n")
    holder.stdin.close()
    holder.wait(30)
    thread.join(30)
    return settled(fleet, report, f"stopped at {table}", before, version)


def at_random(fleet, report, version):
    before = state(fleet)
    thread = post(fleet, version)
    time.sleep(random.uniform(0, 1.5 * fleet.takes))
    fleet.nodes[0].process.kill()
    thread.join(30)
    return settled(fleet, report, "killed at random", before, version)


def state(fleet):
    """The generation, and what is live of both prompts, as the database has it."""
    rows = fleet.postgres.cluster.sql(
        "SELECT m.generation, l.prompt_id, d.split FROM meta m CROSS JOIN live l JOIN deployments d ON "
        "d.prompt_id = l.prompt_id AND d.environment = l.environment AND d.number = l.number ORDER BY 2", fleet.name,
    )
    rows = [line.split("\t") for line in rows.splitlines()]
    return int(rows[0][0]), [json.loads(split)[0]["version"] for _, _, split in rows]


def settled(fleet, report, case, before, version):
    """Waits for the database to be done with the dead; compares what it and the nodes have; starts the publisher again."""
    gone = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    until("its transaction is gone", lambda: fleet.postgres.cluster.sql(gone, fleet.name) == "0")
    generation, versions = state(fleet)
    if (generation, versions) == before:
        seen = "nothing"
    else:
        seen = "all"
        report.equal(f"{case}: live of both prompts", versions, [version, version])
        report.equal(f"{case}: generation", generation, before[0] + 1)
        fleet.live[generation] = version
    fleet.generation = generation
    fleet.nodes[0].start()
    fleet.caught_up()
    for node in fleet.nodes:
        for prompt, wanted in zip(PAIR, versions):
            found = fleet.render(node, prompt)
            report.equal(f"{case}: {node.name} serves {prompt}", found[1:], (generation, wanted, wanted))
    return seen
