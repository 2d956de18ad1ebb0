"""The OpenAI SDK: every refusal and failure is the exception that its users catch."""

from datetime import datetime

import openai
import pytest

from conftest import GREET, QUESTION

ASK = {"messages": [], "model": "any"}
HELLO = [{"role": "user", "content": "Hello"}]


def greet(**prompt):
    return {**ASK, "extra_body": {"prompt": {"id": "support/greet", "variables": QUESTION, **prompt}}}


REFUSED = [
    (greet(version=1, environment="staging"), openai.BadRequestError, "contradiction"),
    (greet(version="latest"), openai.BadRequestError, "invalid_field"),
    ({**ASK, "extra_body": {"prompt": "support/greet"}}, openai.BadRequestError, "invalid_field"),
    ({**ASK, "extra_body": {"prompt": {"variables": {}}}}, openai.BadRequestError, "prompt_id_missing"),
    (
        greet() | {"messages": [{"role": "system", "content": "Forget it."}]},
        openai.BadRequestError,
        "caller_system_message",
    ),
    (greet(environment="development"), openai.PermissionDeniedError, "not_allowed"),
    (greet(id="support/nobody"), openai.NotFoundError, "prompt_not_found"),
    (greet(id="support/draft"), openai.NotFoundError, "nothing_live"),
    (greet(version=9), openai.NotFoundError, "version_not_found"),
    (greet(environment="moon"), openai.NotFoundError, "environment_not_found"),
    ({"messages": HELLO, "model": "no-such-model"}, openai.NotFoundError, "model_not_found"),
    ({"messages": [], "model": "prompt/support/nobody"}, openai.NotFoundError, "prompt_not_found"),
    (greet(variables={}), openai.UnprocessableEntityError, "invalid_variables"),
]


@pytest.mark.parametrize(("call", "exception", "code"), REFUSED, ids=[code for *_, code in REFUSED])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_refusal_is_typed_recorded_and_never_forwarded(gateway, client, call, exception, code, stream):
    forwarded = gateway.requests_upstream()
    with pytest.raises(exception) as caught:
        client.chat.completions.create(**call, stream=stream)
    error = caught.value
    assert error.code == code
    assert error.body["message"]
    record = gateway.exchange(error.request_id)
    assert (record["outcome"], record["error_code"]) == ("rejected", code)
    assert record["status_code"] == error.status_code
    assert gateway.requests_upstream() == forwarded


def test_every_problem_of_the_variables_is_listed(client, prompt_of):
    prompt = prompt_of(
        {
            "messages": [{"role": "user", "content": "{{ language }} {{ count }} {{ name }}"}],
            "variables": {
                "language": {"type": "string", "enum": ["English", "German"]},
                "count": {"type": "integer"},
                "name": {"type": "string"},
            },
            "model": "mock-model",
        }
    )
    variables = {"language": "Klingon", "count": "many"}
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.chat.completions.create(**ASK, extra_body={"prompt": {"id": prompt, "variables": variables}})
    text = str(caught.value.body["details"])
    assert all(name in text for name in ("language", "count", "name")), text


def test_wrong_key_is_an_authentication_error(gateway, client):
    with pytest.raises(openai.AuthenticationError) as caught:
        client.with_options(api_key="pg_wrong").chat.completions.create(**ASK, extra_body=GREET)
    assert caught.value.code == "invalid_api_key"
    assert "pg_wrong" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param({"model": "mock-model", "messages": HELLO}, id="raw request"),
        pytest.param(greet(version=1), id="pinned version"),
        pytest.param(greet(environment="staging"), id="other environment"),
        pytest.param(greet() | {"extra_headers": {"x-promptgate-variant": "control"}}, id="forced variant"),
    ],
)
def test_what_the_key_may_not_do_is_a_permission_error(gateway, client, call):
    client = client.with_options(api_key=gateway.keys["narrow"])
    assert client.chat.completions.create(**greet()).choices
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.chat.completions.create(**call)
    assert caught.value.code == "not_allowed"


@pytest.mark.parametrize(
    ("model", "status", "outcome"),
    [
        ("mock-model?status=500", 500, "upstream_error"),
        ("mock-model?status=503", 503, "upstream_error"),
        ("mock-model?cut=head", 502, "upstream_error"),
        ("mock-model?malformed=1", 502, "upstream_error"),
        ("unreachable-model", 502, "upstream_error"),
        ("late-model", 504, "timeout"),
    ],
)
def test_failure_of_the_provider_is_an_internal_server_error(gateway, client, model, status, outcome):
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=model, messages=HELLO)
    assert caught.value.status_code == status
    record = gateway.exchange(caught.value.request_id)
    assert (record["outcome"], record["status_code"]) == (outcome, status)


@pytest.mark.parametrize(
    ("status", "exception"),
    [(400, openai.BadRequestError), (404, openai.NotFoundError), (422, openai.UnprocessableEntityError)],
)
def test_refusal_by_the_provider_passes_through(gateway, client, status, exception):
    with pytest.raises(exception) as caught:
        client.chat.completions.create(model=f"mock-model?status={status}", messages=HELLO)
    assert gateway.exchange(caught.value.request_id)["outcome"] == "client_error"


def test_rate_limit_is_typed_and_its_retries_are_recorded(gateway, client, prompt_of):
    prompt = prompt_of({"messages": HELLO, "model": "mock-model?status=429&retry-after=1"})
    with pytest.raises(openai.RateLimitError) as caught:
        client.with_options(max_retries=1).chat.completions.create(**ASK, extra_body={"prompt": {"id": prompt}})
    assert caught.value.response.headers["retry-after"] == "1"
    records = gateway.exchanges(prompt, 2)
    assert [record["client_retries"] for record in records] == [0, 1]
    assert records[1]["exchange_id"] == caught.value.request_id
    first, second = (seconds_of(record["started_at"]) for record in records)
    assert second - first >= 1.0, "the SDK waited as Retry-After says"


def test_retry_gets_what_went_live_meanwhile(gateway, client, prompt_of):
    """A rate limited model is replaced while the SDK waits: its own retry succeeds."""
    messages = {"messages": HELLO}
    prompt = prompt_of({**messages, "model": "mock-model?status=429"}, {**messages, "model": "mock-model"})

    class Deploying:
        done = False

        def __call__(self, response):
            if response.status_code == 429 and not self.done:
                self.done = True
                gateway.deploy(prompt, 2)

    http = openai.DefaultHttpxClient(event_hooks={"response": [Deploying()]})
    with openai.OpenAI(base_url=gateway.base_url, api_key=gateway.keys["app"], http_client=http) as client:
        raw = client.chat.completions.with_raw_response.create(**ASK, extra_body={"prompt": {"id": prompt}})
    assert raw.retries_taken == 1
    assert raw.headers["x-promptgate-version"] == "2"
    records = gateway.exchanges(prompt, 2)
    assert [(record["status_code"], record["client_retries"]) for record in records] == [(429, 0), (200, 1)]


def test_client_that_times_out_is_recorded_as_gone(gateway, client, prompt_of):
    prompt = prompt_of({"messages": HELLO, "model": "mock-model?latency=30s"})
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(**ASK, extra_body={"prompt": {"id": prompt}})
    (record,) = gateway.exchanges(prompt, 1)
    assert (record["outcome"], record["status_code"]) == ("client_disconnected", 499)


def test_path_that_is_not_served_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.post("/nothing/here", cast_to=dict, body={})
    assert caught.value.code == "unknown_route"


def seconds_of(timestamp):
    return datetime.fromisoformat(timestamp).timestamp()
