"""The OpenAI SDK, unchanged but for `base_url` and key: whole answers."""

import json
import uuid
from urllib.parse import quote

import pydantic
import pytest

from conftest import GREET, GREETED, QUESTION

ASK = {"messages": [], "model": "any"}


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({**ASK, "extra_body": GREET}, id="body"),
        pytest.param({**ASK, "extra_body": {"prompt_id": "support/greet", "inputs": QUESTION}}, id="flat fields"),
        pytest.param(
            {"messages": [], "model": "prompt/support/greet", "extra_body": {"variables": QUESTION}}, id="model name"
        ),
        pytest.param(
            {
                **ASK,
                "extra_headers": {
                    "x-promptgate-prompt": "support/greet",
                    "x-promptgate-variables": json.dumps(QUESTION),
                },
            },
            id="headers",
        ),
    ],
)
def test_prompt_is_applied_however_it_is_named(gateway, client, how):
    answer = client.chat.completions.create(**how)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert gateway.sent_upstream() == {
        "model": "mock-model",
        "messages": GREETED,
        "temperature": 0.2,
        "max_tokens": 40,
    }


@pytest.mark.parametrize(
    ("prompt", "environment", "version"),
    [
        ({"environment": "staging"}, "staging", 2),
        ({"label": "staging"}, "staging", 2),
        ({"version": 2}, "production", 2),
        ({"version": "2"}, "production", 2),
    ],
)
def test_environment_or_version_is_chosen_in_the_body(client, prompt, environment, version):
    body = {"prompt": {"id": "support/greet", "variables": QUESTION, **prompt}}
    raw = client.chat.completions.with_raw_response.create(**ASK, extra_body=body)
    assert raw.headers["x-promptgate-version"] == str(version)
    assert raw.headers["x-promptgate-environment"] == environment


@pytest.mark.parametrize("model", ["prompt/support/greet@staging", "prompt/support/greet:2"])
def test_environment_or_version_is_chosen_in_the_model_name(gateway, client, model):
    client.chat.completions.create(model=model, messages=[], extra_body={"variables": QUESTION})
    sent = gateway.sent_upstream()
    assert sent["messages"] == [{"role": "user", "content": "In one word: Where is my order?"}]
    assert sent["model"] == "mock-model"


def test_variables_in_a_header_may_have_any_characters(gateway, client):
    question = 'Wo ist „mein" Päckchen? 📦'
    headers = {
        "x-promptgate-prompt": "support/greet",
        "x-promptgate-variables": quote(json.dumps({"question": question})),
    }
    client.chat.completions.create(**ASK, extra_headers=headers)
    assert gateway.sent_upstream()["messages"][1]["content"] == question


def test_request_without_a_prompt_passes_as_it_is(gateway, client):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    answer = client.chat.completions.create(model="mock-model", messages=messages, seed=7)
    assert answer.choices[0].message.content
    assert gateway.sent_upstream() == {"model": "mock-model", "messages": messages, "seed": 7}


def test_request_id_is_that_of_the_record(gateway, client):
    raw = client.chat.completions.with_raw_response.create(
        **ASK, extra_body=GREET, user="customer-17", metadata={"team": "support"}
    )
    answer = raw.parse()
    assert uuid.UUID(answer._request_id).version == 7
    assert answer._request_id == raw.headers["x-request-id"] == raw.headers["x-promptgate-exchange-id"]
    record = gateway.exchange(answer._request_id)
    expected = {
        "exchange_id": answer._request_id,
        "prompt_id": "support/greet",
        "version": 1,
        "variant": "control",
        "environment": "production",
        "endpoint": "chat_completions",
        "streaming": False,
        "outcome": "ok",
        "status_code": 200,
        "finish_reason": "stop",
        "request_model": "any",
        "response_model": "mock-model",
        "response_id": answer.id,
        "upstream_request_id": raw.headers["x-upstream-request-id"],
        "input_tokens": answer.usage.prompt_tokens,
        "output_tokens": answer.usage.completion_tokens,
        "total_tokens": answer.usage.total_tokens,
        "client_retries": 0,
        "tags": {"team": "support"},
        "variables": QUESTION,
    }
    assert {name: record[name] for name in expected} == expected
    assert record["user"] not in ("", "customer-17"), "kept as a keyed hash"
    assert record["request"]["messages"] == GREETED
    assert record["response"]["choices"][0]["message"]["content"] == answer.choices[0].message.content
    assert record["cost_nanodollars"] > 0


def test_fields_that_sdks_send_unasked_change_nothing(gateway, client):
    prompt = {"id": "support/greet", "variables": QUESTION, "version": None, "environment": None}
    unasked = {"prompt": prompt, "include": [], "tool_choice": None, "response_format": None, "environment": None}
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=[], stream=False, tools=[], n=None, stop=None, extra_body=unasked
    )
    assert "x-promptgate-ignored" not in raw.headers
    assert gateway.sent_upstream() == {
        "model": "mock-model",
        "messages": GREETED,
        "temperature": 0.2,
        "max_tokens": 40,
        "stream": False,
    }


def test_what_the_version_sets_wins_and_the_caller_is_told(gateway, client):
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=[], extra_body=GREET, temperature=2, top_p=0.5
    )
    assert raw.headers["x-promptgate-ignored"] == "temperature"
    sent = gateway.sent_upstream()
    assert (sent["model"], sent["temperature"], sent["top_p"]) == ("mock-model", 0.2, 0.5)


def test_history_goes_into_its_place_and_the_callers_model_is_used(gateway, client):
    history = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello! How can I help?"},
        {"role": "user", "content": [{"type": "text", "text": "Where is it?"}]},
    ]
    client.chat.completions.create(
        model="mock-model", messages=history, temperature=1, extra_body={"prompt": {"id": "support/chat"}}
    )
    system = {"role": "system", "content": "You help customers of Acme."}
    assert gateway.sent_upstream() == {"model": "mock-model", "messages": [system, *history], "temperature": 1}


@pytest.mark.parametrize("extra", [{"environment": "production"}, {"inputs": QUESTION}, {"prompt_version": 3}])
def test_prompt_fields_never_reach_the_provider_also_without_an_id(gateway, client, extra):
    messages = [{"role": "user", "content": "Hello"}]
    client.chat.completions.create(model="mock-model", messages=messages, extra_body=extra)
    assert gateway.sent_upstream() == {"model": "mock-model", "messages": messages}


def test_empty_tools_leave_the_saved_tools(client):
    weather = {"prompt": {"id": "support/weather", "variables": {"question": "Rain?"}}}
    answer = client.chat.completions.create(**ASK, tools=[], extra_body=weather)
    assert answer.choices[0].finish_reason == "tool_calls"
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "saved_weather"
    json.loads(call.function.arguments)


def test_tools_of_the_caller_pass(client):
    parameters = {"type": "object", "properties": {"order": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "find_order", "parameters": parameters}}
    answer = client.chat.completions.create(
        model="mock-model?tool-call", messages=[{"role": "user", "content": "Find it"}], tools=[tool]
    )
    assert answer.choices[0].message.tool_calls[0].function.name == "find_order"


def test_structured_output_is_parsed(gateway, client):
    class Order(pydantic.BaseModel):
        number: int
        status: str

    text = quote('{"number": 17, "status": "sent"}')
    answer = client.chat.completions.parse(
        model=f"mock-model?text={text}",
        messages=[{"role": "user", "content": "Which order?"}],
        response_format=Order,
        extra_body={"prompt": {"id": "support/chat"}},
    )
    assert answer.choices[0].message.parsed == Order(number=17, status="sent")
    assert gateway.sent_upstream()["response_format"]["json_schema"]["name"] == "Order"


def test_models_are_listed(client):
    models = client.models.list()
    assert [model.id for model in models] == ["mock-model", "late-model", "unreachable-model"]


def test_feedback_is_taken_through_the_sdk(client):
    answer = client.chat.completions.create(**ASK, extra_body=GREET)
    score = {"exchange_id": answer._request_id, "name": "helpful", "value": True}
    assert uuid.UUID(client.post("/feedback", cast_to=dict, body=score)["feedback_id"])
