"""The OpenAI SDK: streamed answers."""

import json

import openai
import pytest

from conftest import GREET

ASK = {"messages": [], "model": "any", "stream": True, "extra_body": GREET}


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_stream_is_the_whole_answer_without_the_usage_nobody_asked_for(gateway, client):
    whole = client.chat.completions.create(**(ASK | {"stream": False}))
    stream = client.chat.completions.create(**ASK)
    chunks = list(stream)
    assert text_of(chunks) == whole.choices[0].message.content
    assert len(chunks) > 10
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert gateway.sent_upstream()["stream_options"] == {"include_usage": True}

    record = gateway.exchange(stream.response.headers["x-request-id"])
    assert (record["outcome"], record["streaming"]) == ("ok", True)
    assert record["output_tokens"] == whole.usage.completion_tokens
    assert record["time_to_first_token_us"] > 0
    assert record["response"]["content"] == text_of(chunks)


def test_usage_is_in_the_last_chunk_if_asked_for(gateway, client):
    stream = client.chat.completions.create(**ASK, stream_options={"include_usage": True})
    chunks = list(stream)
    assert chunks[-1].choices == []
    record = gateway.exchange(stream.response.headers["x-request-id"])
    usage = chunks[-1].usage
    assert (record["input_tokens"], record["output_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_stream_helper_assembles_text_and_usage(client):
    with client.chat.completions.stream(
        messages=[], model="any", extra_body=GREET, stream_options={"include_usage": True}
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        answer = stream.get_final_completion()
    assert "".join(deltas) == answer.choices[0].message.content
    assert answer.usage.completion_tokens == 16


def test_streamed_tool_call_is_assembled(gateway, client):
    weather = {"prompt": {"id": "support/weather", "variables": {"question": "Rain?"}}}
    with client.chat.completions.stream(messages=[], model="any", extra_body=weather) as stream:
        call = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert call.function.name == "saved_weather"
    record = gateway.exchange(stream._response.headers["x-request-id"])
    recorded = record["response"]["tool_calls"][0]
    assert recorded["function"] == {"name": "saved_weather", "arguments": call.function.arguments}


@pytest.mark.parametrize("wire", ["crlf", "pad-comments", "split=1", "chunk-interval=1ms"])
def test_wire_form_of_the_stream_does_not_matter(client, wire):
    text = "Gr%C3%BC%C3%9Fe%20%E2%9C%93%20%F0%9F%93%A6"
    messages = [{"role": "user", "content": "Hello"}]
    chunks = client.chat.completions.create(model=f"mock-model?text={text}&{wire}", messages=messages, stream=True)
    assert text_of(chunks) == "Grüße ✓ 📦"


@pytest.mark.parametrize(
    ("fault", "exception"),
    [
        ("error-in-stream=3", openai.APIError),
        ("cut=3", openai.APIError),
        ("no-done&cut=4", openai.APIError),
        # The provider's bytes are passed on as they are; the SDK cannot read them either.
        ("malformed=3", json.JSONDecodeError),
    ],
)
def test_failure_inside_a_stream_is_an_error_not_an_end(gateway, client, fault, exception):
    stream = client.chat.completions.create(
        model=f"mock-model?{fault}", messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    with pytest.raises(exception):
        list(stream)
    record = gateway.exchange(stream.response.headers["x-request-id"])
    assert record["outcome"] == "upstream_error"


def test_stream_closed_early_is_recorded_as_the_client_leaving(gateway, client):
    stream = client.chat.completions.create(
        model="mock-model?chunk-interval=20ms&tokens=500", messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    for _ in range(5):
        next(stream)
    stream.close()
    record = gateway.exchange(stream.response.headers["x-request-id"])
    assert record["outcome"] == "client_disconnected"
    assert record["response"], "what was relayed is kept"
