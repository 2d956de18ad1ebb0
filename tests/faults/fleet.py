"""Several gateways on one PostgreSQL, what is published to them, and whoever watches that nobody sees a mix."""

import collections
import json
import signal
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException

from processes import ROOT, Failed, Gateway, Process, free_port, until

sys.path.insert(0, str(ROOT / "tests/postgres"))
import server as postgres  # noqa: E402

PAIR = ("fleet/one", "fleet/two")
VERSIONS = 8


class Postgres:
    """The real server, on data that outlives it."""

    def __init__(self, stage):
        self.stage = stage
        self.cluster = postgres.Cluster(stage.folder / "postgres", free_port())
        self.start()

    def start(self):
        # What a killed server's children hold may take them a moment to let go.
        for _ in range(20):
            self.process = Process(self.stage, "postgres", self.cluster.command(), **postgres.identity())
            answered = lambda: not self.process.running() or self.cluster.answers()
            until("PostgreSQL answers", answered, 60)
            if self.process.running():
                return self
            time.sleep(0.2)
        raise Failed(f"PostgreSQL does not start: {self.process.log()[-1000:]}")

    def kill(self):
        """`kill -9` of the server, whose children end by themselves when they see it."""
        self.process.kill()

    def quit(self):
        self.process.child.send_signal(signal.SIGQUIT)
        self.process.ended()

    def database(self, name):
        self.cluster.sql(f"CREATE DATABASE {name}")
        return f"postgres://{postgres.USER}@127.0.0.1:{self.cluster.port}/{name}?sslmode=disable"

    def break_listeners(self, name):
        """Ends the connections that notifications come on; returns how many there were."""
        return int(self.cluster.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' "
            f"AND datname = '{name}'"
        ))


class Fleet:
    """Three gateways that serve a pair of prompts, both always at the same version."""

    def __init__(self, stage, name, poll="1s"):
        self.stage, self.name = stage, name
        self.postgres = Postgres(stage)
        url = self.postgres.database(name)
        settings = {"registry": url, "poll": poll, "sink": "none", "log": "warn"}
        self.nodes = [Gateway(stage, f"{name}-{letter}", **settings) for letter in "abc"]
        self.nodes[0].start()
        self.key = self.nodes[0].key
        for node in self.nodes[1:]:
            node.key = self.key
            node.start()
        #: The version that is live from a generation on, as the publisher was told.
        self.live = {}
        for prompt in PAIR:
            self.nodes[0].admin("POST", "/prompts", {"id": prompt})
            for number in range(1, VERSIONS + 1):
                content = {"messages": [{"role": "user", "content": f"{prompt} {number} {{{{ name }}}}"}],
                           "variables": {"name": {"type": "string"}}, "model": "mock-model"}
                body = {"content": content, "message": "fleet"}
                self.nodes[0].admin("POST", f"/prompts/{prompt}/versions", body)
        self.generation = 0
        self.publish(self.nodes[0], 1)
        self.caught_up()

    def deployment(self, version):
        split = [{"variant": "control", "version": version, "weight": 100}]
        deployments = [{"prompt": prompt, "split": split} for prompt in PAIR]
        return {"environment": "production", "deployments": deployments, "message": "fleet"}

    def publish(self, node, version):
        """Makes a version of both prompts live; returns the generation that the publisher was told."""
        self.generation = node.admin("POST", "/deployments", self.deployment(version))["generation"]
        self.live[self.generation] = version
        return self.generation

    def caught_up(self, seconds=30, nodes=None):
        """Waits until every node serves the newest generation that was published."""
        for node in nodes or self.nodes:
            status = lambda node=node: self.render(node, PAIR[0], self.generation)[0]
            until(f"{node.name} serves generation {self.generation}", lambda: status() == 200, seconds)

    def render(self, node, prompt, at_least=None):
        """Status, generation, version as the header says it, version as the text says it."""
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        if at_least:
            headers["x-promptgate-min-generation"] = str(at_least)
        status, answer, body = exchange(node.address, prompt, headers)
        if status != 200:
            return status, 0, 0, 0
        text = json.loads(body)["messages"][0]["content"].split()
        return (status, int(answer["x-promptgate-generation"]), int(answer["x-promptgate-version"]), int(text[1]))


connections = threading.local()


def exchange(address, prompt, headers):
    """One render over a connection of this thread."""
    known = connections.__dict__.setdefault("by_address", {})
    for attempt in (1, 2):
        connection = known.pop(address, None) or HTTPConnection(address, timeout=30)
        try:
            connection.request("POST", f"/v1/prompts/{prompt}/render", '{"variables":{"name":"x"}}', headers)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, HTTPException):
            # An idle connection that the other side closed; a second time it is real.
            if attempt == 2:
                raise
            continue
        known[address] = connection
        return answer.status, answer.headers, body


class Watcher:
    """Renders both prompts on a node all the time, and keeps what was seen."""

    def __init__(self, fleet, node, pause=0.002):
        self.fleet, self.node, self.pause = fleet, node, pause
        self.seen, self.statuses, self.errors = [], collections.Counter(), 0
        self.stopping = False
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        turn = 0
        while not self.stopping:
            turn += 1
            prompt = PAIR[turn % 2]
            try:
                status, *what = self.fleet.render(self.node, prompt)
                self.statuses[status] += 1
                if status == 200:
                    self.seen.append(what)
            except OSError:
                self.errors += 1
                time.sleep(0.05)
            time.sleep(self.pause)

    def stop(self):
        self.stopping = True
        self.thread.join(60)
        return self

    def backwards(self):
        generations = [generation for generation, _, _ in self.seen]
        return sum(later < earlier for earlier, later in zip(generations, generations[1:]))

    def mixes(self):
        """Answers whose generation, version and text do not belong together."""
        order = sorted(self.fleet.live)
        bad = 0
        for generation, version, text in self.seen:
            known = [one for one in order if one <= generation]
            if known and (version != text or version != self.fleet.live[known[-1]]):
                bad += 1
        return bad

    def check(self, report, case):
        report.equal(f"{case}: {self.node.name} moved backwards", self.backwards(), 0)
        report.equal(f"{case}: {self.node.name} served a mix", self.mixes(), 0)
        report.equal(f"{case}: {self.node.name} failed requests", (self.statuses.total() - self.statuses[200], self.errors), (0, 0))


def milliseconds_until_live(fleet, publisher, generation):
    """Asks all other nodes for a generation at once; the time until each answers with it."""
    others = [node for node in fleet.nodes if node is not publisher]
    took, began = {}, time.monotonic()

    def ask(node):
        status = fleet.render(node, PAIR[0], generation)[0]
        took[node.name] = (time.monotonic() - began) * 1e3 if status == 200 else float("inf")

    # Threads of a pool, so that connections are kept.
    list(fleet.pool.map(ask, others))
    return list(took.values())


def nodes_by_name(gateway):
    listed = gateway.admin("GET", "/nodes")
    return {item["name"]: item for item in listed["items"] if item["state"] != "gone"}

