"""PostgreSQL killed: all nodes go on serving, one that is restarted serves its last snapshot, all catch up afterwards."""

import json
import time

from fleet import Fleet, Watcher, nodes_by_name
from processes import TOKEN, http, until


def run(stage, report, short):
    fleet = Fleet(stage, "down")
    for version in range(2, 6):
        fleet.publish(fleet.nodes[version % 3], version)
    fleet.caught_up()
    # What a node serves is in its file already, but for the beginning of the file, half a second after a start.
    snapshots = [node.folder / "registry-snapshot" for node in fleet.nodes]
    written = lambda: all(path.exists() and f'"generation":{fleet.generation},' in path.read_text() for path in snapshots)
    until("every node has written its snapshot", written)
    for path in snapshots:
        report.equal(f"{path.parent.name}: mode of the snapshot", oct(path.stat().st_mode & 0o777), "0o600")
        report.check(fleet.key not in path.read_text(), f"{path.parent.name}: the snapshot holds a key's secret")
    watchers = [Watcher(fleet, node) for node in fleet.nodes]
    fleet.written = lambda: until("every node has written its snapshot", written)

    for n in range(1, (1 if short else 5) + 1):
        down(fleet, report, f"round {n}", n, watchers, 2 if short else 10)

    for watcher in watchers:
        watcher.stop()
    for watcher in watchers[:2]:
        watcher.check(report, "never restarted")
    report.equal("restarted node moved backwards", watchers[2].backwards(), 0)
    report.equal("restarted node served a mix", watchers[2].mixes(), 0)
    report.note(f"{sum(len(w.seen) for w in watchers):,} answers looked at for mixes and steps back")


def down(fleet, report, case, n, watchers, seconds):
    first, other, restarted = fleet.nodes
    answered = sum(len(watcher.seen) for watcher in watchers)
    before = fleet.generation
    fleet.postgres.kill()
    until("nodes notice", lambda: all(node.metric("promptgate_registry_up") == 0 for node in fleet.nodes), 60)
    status, body = http(
        "POST", f"http://{first.control}/api/v1/deployments", json.dumps(fleet.deployment(1)).encode(),
        {"authorization": f"Bearer {TOKEN}"},
    )
    report.equal(f"{case}: a publish meanwhile", (status, json.loads(body)["error"]["code"]), (503, "unavailable"))

    restarted.process.kill()
    began = time.monotonic()
    restarted.start()
    start_ms = (time.monotonic() - began) * 1e3
    status, generation, *_ = fleet.render(restarted, "fleet/one")
    report.equal(f"{case}: the restarted node serves", (status, generation), (200, before))
    report.check("REGISTRY IS AWAY" in restarted.process.log(), f"{case}: the restarted node does not say so")
    report.equal(f"{case}: its readyz", restarted.ready(), 200)
    report.equal(f"{case}: its promptgate_registry_up", restarted.metric("promptgate_registry_up"), 0)
    time.sleep(seconds)
    for node in fleet.nodes:
        report.equal(f"{case}: {node.name} serves", fleet.render(node, "fleet/two")[:2], (200, before))

    fleet.postgres.start()
    began = time.monotonic()
    tried = lambda: publishes(fleet, first, n % 8 + 1)
    until("a publish works again", tried, 60)
    publish_ms = (time.monotonic() - began) * 1e3
    fleet.caught_up()
    report.check(fleet.generation > before, f"{case}: generation {fleet.generation} after {before}")
    caught_ms = (time.monotonic() - began) * 1e3
    fleet.written()
    listed = until("nodes are listed again", lambda: len(nodes_by_name(other)) >= 3, 30)
    report.row(
        case=case, down_s=float(seconds), answers_meanwhile=sum(len(w.seen) for w in watchers) - answered,
        start_without_ms=start_ms, publish_after_ms=publish_ms, all_caught_up_after_ms=caught_ms, listed=bool(listed),
    )


def publishes(fleet, node, version):
    status, body = http(
        "POST", f"http://{node.control}/api/v1/deployments", json.dumps(fleet.deployment(version)).encode(),
        {"authorization": f"Bearer {TOKEN}"},
    )
    if status != 200:
        return False
    fleet.generation = json.loads(body)["generation"]
    fleet.live[fleet.generation] = version
    return True
