"""A fast load generator: keep-alive HTTP/1.1 connections on one event loop, in a thread of its own.

It keeps the `x-request-id` of each answer that was received completely, and what became of all others. Closed: each
connection sends its next request when the answer is whole. Open: requests start at fixed times, whatever the answers
do; their latency counts from the time they were due.
"""

import asyncio
import collections
import json
import threading
import time


def request(key, body, session="", path="/v1/chat/completions", headers=()):
    """The bytes of a call."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: gateway", f"authorization: Bearer {key}", "content-type: application/json"]
    lines += [f"content-length: {len(body)}", *(f"{name}: {value}" for name, value in headers)]
    if session:
        lines.append(f"x-promptgate-session: {session}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chat(model="mock-model", stream=False, text="hi"):
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}


def mix(key, session="", bytes_of_text=300):
    """What ordinary applications send: three plain calls to one streamed one."""
    text = ("All happy families are alike; " * (bytes_of_text // 30 + 1))[:bytes_of_text]
    plain, streamed = chat("mock-model?tokens=24", False, text), chat("mock-model?tokens=24", True, text)
    return [request(key, body, session) for body in (plain, plain, streamed, plain)]


def percentile(sorted_values, share):
    """In the unit of the values; 0 of none."""
    if not sorted_values:
        return 0.0
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


class Connection(asyncio.Protocol):
    """One connection with at most one request in flight."""

    __slots__ = ("load", "transport", "due", "head", "left", "tail", "id", "status", "streamed", "busy",
                 "closes")

    def __init__(self, load):
        self.load, self.transport, self.busy = load, None, False

    def connection_made(self, transport):
        self.transport = transport

    def send(self, bytes_, due):
        self.busy, self.due = True, due
        self.head, self.left, self.tail, self.id, self.status, self.streamed = b"", None, b"", "", 0, False
        self.load.sent += 1
        self.transport.write(bytes_)

    def data_received(self, data):
        if self.head is not None:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data, self.head = self.head[: end + 2].lower(), self.head[end + 4 :], None
            self.status = int(head[9:12])
            self.id = value(head, b"\r\nx-request-id: ").decode()
            length = value(head, b"\r\ncontent-length: ")
            self.left = int(length) if length else None
            self.closes = b"\r\nconnection: close\r\n" in head
            self.streamed = b"\r\ncontent-type: text/event-stream" in head
            self.load.begun(self)
        if self.left is not None:
            self.left -= len(data)
            if self.left <= 0:
                self.complete()
            return
        self.tail = (self.tail + data)[-64:]
        if self.tail.endswith(b"\r\n0\r\n\r\n"):
            self.complete()

    def complete(self):
        self.busy = False
        whole = not self.streamed or b"data: [DONE]\n\n" in self.tail
        self.load.answered(self, whole)

    def connection_lost(self, _error):
        self.load.lost(self)


def value(head, name):
    at = head.find(name)
    if at < 0:
        return b""
    at += len(name)
    return head[at : head.index(b"\r\n", at)]


class Load:
    """Load on one address. `start`, then `stop`, or `wait` if it has a count; the figures are whole after that."""

    def __init__(self, address, requests, connections=32, rate=None, count=None):
        host, port = address.rsplit(":", 1)
        self.host, self.port = host, int(port)
        self.requests, self.width, self.rate, self.count = requests, connections, rate, count
        self.connections, self.idle = set(), []
        self.sent = 0
        #: Ids of answers received whole.
        self.complete = []
        #: Ids of answers that began and were cut off.
        self.cut = []
        #: Requests whose connection ended before an answer began.
        self.unanswered = 0
        #: Streams that ended properly but without their terminal event.
        self.ended_early = []
        self.unconnected = 0
        self.statuses = collections.Counter()
        #: (time it was due, latency), in seconds of time.monotonic.
        self.times = []
        self.stopping = False
        self.thread = threading.Thread(target=lambda: asyncio.run(self.run()), daemon=True)
        self.ready = threading.Event()

    def start(self):
        self.began = time.monotonic()
        self.thread.start()
        self.ready.wait(30)
        return self

    def stop(self, seconds=60):
        """Sends nothing new, and waits for the answers on their way."""
        self.stopping = True
        return self.wait(seconds)

    def wait(self, seconds):
        self.thread.join(seconds)
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.done.set)
            self.thread.join(10)
        self.took = time.monotonic() - self.began
        return self

    @property
    def failed(self):
        """Requests without a whole answer of status 200."""
        return self.sent - len(self.complete) + self.unconnected

    def latencies(self, begin=0.0, end=float("inf")):
        """Sorted, in ms, of requests that were due in a time."""
        return sorted(took * 1e3 for due, took in self.times if begin <= due < end)

    # --- In the thread -------------------------------------------------------------------------------------------

    async def run(self):
        self.loop, self.done = asyncio.get_running_loop(), asyncio.Event()
        self.next = 0
        if self.rate is None:
            await asyncio.gather(*(self.connect() for _ in range(self.width)), return_exceptions=True)
            for connection in list(self.connections):
                self.go_on(connection)
        else:
            for _ in range(4):
                self.idle.append(await self.connect())
            self.tick(self.loop.time(), 0)
        self.ready.set()
        while not self.done.is_set():
            await asyncio.sleep(0.02)
            if (self.stopping or not self.connections) and not any(c.busy for c in self.connections):
                break
        for connection in list(self.connections):
            self.lost(connection)
            connection.transport.abort()

    async def connect(self):
        try:
            _, connection = await self.loop.create_connection(lambda: Connection(self), self.host, self.port)
        except OSError:
            self.unconnected += 1
            raise
        self.connections.add(connection)
        return connection

    def tick(self, began, n):
        """Open loop: sends what is due."""
        now = self.loop.time()
        while not self.stopping and (due := began + n / self.rate) <= now:
            n += 1
            self.fire(due)
        if not self.stopping:
            self.loop.call_at(began + n / self.rate, self.tick, began, n)

    def fire(self, due):
        bytes_ = self.pick()
        while self.idle:
            connection = self.idle.pop()
            if connection in self.connections:
                return connection.send(bytes_, due)
        self.loop.create_task(self.fire_new(bytes_, due))

    async def fire_new(self, bytes_, due):
        try:
            connection = await self.connect()
        except OSError:
            return
        connection.send(bytes_, due)

    def pick(self):
        self.next += 1
        return self.requests[self.next % len(self.requests)]

    def go_on(self, connection):
        """Closed loop: the next request of a connection."""
        if self.stopping or (self.count is not None and self.next >= self.count):
            self.stopping = True
            return
        connection.send(self.pick(), self.loop.time())

    def begun(self, connection):
        """An answer's head has come."""

    def answered(self, connection, whole):
        now = self.loop.time()
        self.times.append((connection.due, now - connection.due))
        self.statuses[connection.status] += 1
        if not whole:
            self.ended_early.append(connection.id)
        elif connection.status == 200:
            self.complete.append(connection.id)
        if connection.closes:
            # The server says that it takes no more requests here, as when it stops.
            connection.transport.close()
        elif self.rate is not None:
            self.idle.append(connection)
        else:
            self.go_on(connection)

    def lost(self, connection):
        self.connections.discard(connection)
        if connection.busy:
            connection.busy = False
            if connection.id:
                self.cut.append(connection.id)
            else:
                self.unanswered += 1


class Held(Load):
    """Requests that are sent once, one a connection, and then stay open."""

    def __init__(self, address, requests):
        super().__init__(address, requests, connections=len(requests), count=len(requests))
        #: Ids of the streams that have begun.
        self.open = []

    def begun(self, connection):
        self.open.append(connection.id)
