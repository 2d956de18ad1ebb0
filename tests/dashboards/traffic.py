"""Prompts, keys and requests that make every panel move."""

import http.client
import itertools
import json
import socket
import threading

from processes import Refused, http as call, wait_for

PROMPT, OTHER_PROMPT = "support/greet", "docs/summary"
ENVIRONMENT, MODEL = "production", "mock-model"
#: The configured names of the models that requests of the prompts are routed to: the failing ones go by a pattern.
ROUTED = [MODEL, "mock-model?*"]
#: Versions of the prompt whose model fails, for those who name them.
FAILING = {3: ("mock-model?status=500", 500), 4: ("mock-model?status=400", 400)}
_QUESTION = {"question": {"type": "string", "maxLength": 400}}


def configuration(mock_url, telemetry):
    return f"""
        [server]
        listen = "127.0.0.1:0"
        admin_listen = "127.0.0.1:0"
        node = "gateway-1"
        drain = "5s"
        [telemetry]
        {telemetry}
        [[providers]]
        name = "mock"
        kind = "openai"
        base_url = "{mock_url}/v1"
        [[providers]]
        name = "impatient"
        kind = "openai"
        base_url = "{mock_url}/v1"
        timeouts.first_byte = "200ms"
        # Nobody listens on port 1.
        [[providers]]
        name = "unreachable"
        kind = "openai"
        base_url = "http://127.0.0.1:1/v1"
        [[models]]
        name = "mock-model"
        targets = [{{ provider = "mock" }}]
        # With the mock's controls: mock-model?status=500
        [[models]]
        name = "mock-model?*"
        targets = [{{ provider = "mock" }}]
        [[models]]
        name = "late-model"
        targets = [{{ provider = "impatient", model = "mock-model?latency=30s" }}]
        [[models]]
        name = "unreachable-model"
        targets = [{{ provider = "unreachable" }}]
    """


class Traffic:
    """Sends to one gateway in front of a mock, and remembers what came of it."""

    def __init__(self, gateway, mock):
        self.gateway, self.mock = gateway, mock
        self.users = itertools.count(1)
        self.exchanges = []
        self.feedback = 0
        self.key = None
        self._stream = None

    def seed(self):
        """Two prompts, one with a split; a key."""
        admin = self.gateway.admin
        failing = [("Fail.", model) for model, _ in FAILING.values()]
        versions = {
            PROMPT: [("Be brief.", MODEL), ("Be friendly.", MODEL), *failing],
            OTHER_PROMPT: [("Summarise.", MODEL)],
        }
        for prompt, contents in versions.items():
            admin("POST", "/prompts", {"id": prompt})
            for number, (text, model) in enumerate(contents, start=1):
                messages = [{"role": "system", "content": text}, {"role": "user", "content": "{{ question }}"}]
                parameters = {"max_tokens": 10 * number}
                content = {"messages": messages, "variables": _QUESTION, "model": model, "parameters": parameters}
                admin("POST", f"/prompts/{prompt}/versions", {"content": content, "message": "for the tests"})
        self.split(50, 50)
        self.deploy(OTHER_PROMPT, [{"variant": "control", "version": 1, "weight": 100}])
        self.key = admin("POST", "/keys", {"name": "app", "environment": ENVIRONMENT})["key"]

    def split(self, control, other):
        """Publishes new weights: another deployment."""
        arms = [("control", 1, control), ("b", 2, other)]
        self.deploy(PROMPT, [{"variant": v, "version": n, "weight": w} for v, n, w in arms])

    def deploy(self, prompt, split):
        body = {"split": split, "message": "for the tests"}
        self.gateway.admin("PUT", f"/prompts/{prompt}/deployments/{ENVIRONMENT}", body)

    def round(self):
        """Every kind of request and of end there is, except those that need a gateway to die."""
        for number in range(8):
            streamed = number % 2 == 0
            self.answered(self.of_prompt(OTHER_PROMPT, stream=streamed))
            exchange = self.answered(self.of_prompt(PROMPT, stream=streamed))
            self.score(exchange_id=exchange["exchange_id"], name="stars", value=1 + number % 5)
            self.score(exchange_id=exchange["exchange_id"], name="helpful", value=number > 2)
        self.answered({"model": MODEL, "input": "Where is it?"}, "/responses")
        self.answered({"model": MODEL, "input": "Where is it?"}, "/embeddings")
        self.answered(self.raw(MODEL))
        self.post(f"/prompts/{PROMPT}/render", {"variables": {"question": "Where is my order?"}})
        self.list_models()
        self.refused(404, self.of_prompt("support/nowhere"))
        self.refused(422, {"model": MODEL, "prompt": {"id": PROMPT, "variables": {}}})
        self.refused(401, self.of_prompt(PROMPT), key="pg_nobody")
        for version, (_, status) in FAILING.items():
            self.refused(status, self.of_prompt(PROMPT, version=version))
        self.refused(504, self.raw("late-model"))
        self.refused(502, self.raw("unreachable-model"))
        self.refused(502, self.raw("mock-model?cut=head"))
        self.leave()
        self.never_a_request()
        exchange = self.answered(self.of_prompt(PROMPT))
        self.score(response_id=exchange["response_id"], name="polite", value=True)
        self.score(exchange_id=exchange["exchange_id"], name="why", value="too long")

    def of_prompt(self, prompt, version=None, **more):
        reference = {"id": prompt, "variables": {"question": "Where is my order?"}}
        if version:
            reference["version"] = version
        return {"model": MODEL, "user": f"user-{next(self.users)}", "prompt": reference, **more}

    def raw(self, model):
        return {"model": model, "messages": [{"role": "user", "content": "Hello"}]}

    def post(self, path, body, key=None):
        return call("POST", self.gateway.base_url + path, body, {"authorization": f"Bearer {key or self.key}"})

    def list_models(self):
        call("GET", self.gateway.base_url + "/models", None, {"authorization": f"Bearer {self.key}"})

    def answered(self, body, path="/chat/completions"):
        answer, headers = self.post(path, body)
        id = None if body.get("stream") else json.loads(answer).get("id")
        exchange = {"exchange_id": headers["x-promptgate-exchange-id"], "response_id": id}
        self.exchanges.append(exchange)
        return exchange

    def refused(self, status, body, key=None):
        try:
            self.post("/chat/completions", body, key)
        except Refused as refused:
            assert refused.status == status, refused
        else:
            raise AssertionError(f"{body} was not refused with {status}")

    def score(self, **feedback):
        self.post("/feedback", feedback)
        self.feedback += 1

    def leave(self):
        """Hangs up while the provider thinks."""
        asked = lambda: json.loads(call("GET", self.mock.url + "/__mock/stats")[0])["requests"]
        before = asked()
        connection = self.open(self.raw("mock-model?latency=20s"))
        wait_for("the provider to be asked", lambda: asked() > before)
        connection.close()

    def never_a_request(self):
        """Something that is not HTTP."""
        host, port = self.gateway.address.split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            connection.settimeout(10)
            while connection.recv(4096):
                pass

    def open(self, body):
        """Sends a request without waiting for its answer."""
        connection = http.client.HTTPConnection(self.gateway.address)
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        return connection

    def hold_stream(self):
        """Keeps a stream open until `release`."""
        self._stream = self.open({**self.raw("mock-model?tokens=2000&chunk-interval=100ms"), "stream": True})
        answer = self._stream.getresponse()
        assert answer.status == 200
        threading.Thread(target=self._drain, args=(answer,), daemon=True).start()

    @staticmethod
    def _drain(answer):
        try:
            while answer.read1(4096):
                pass
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            # Released.
            pass

    def release(self):
        self._stream.sock.shutdown(socket.SHUT_RDWR)
