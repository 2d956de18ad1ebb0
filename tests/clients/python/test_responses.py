"""The OpenAI SDK's Responses API, as callers of stored prompts use it."""

import openai
import pytest

from conftest import GREET, GREETED


def test_stored_prompt_call_works_unchanged(gateway, client):
    answer = client.responses.create(prompt=GREET["prompt"])
    assert answer.output_text
    assert answer.status == "completed"
    assert answer.usage.total_tokens > 0
    sent = gateway.sent_upstream()
    assert sent["input"] == GREETED
    assert sent["max_output_tokens"] == 40
    assert "prompt" not in sent and "messages" not in sent


def test_streamed_response_ends_with_its_usage(gateway, client):
    events = list(client.responses.create(prompt=GREET["prompt"], stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].type == "response.completed"
    answer = events[-1].response
    assert answer.output_text == text != ""
    assert answer.usage.output_tokens > 0


def test_refusals_are_typed(client):
    with pytest.raises(openai.NotFoundError):
        client.responses.create(prompt={"id": "support/nope"})
    with pytest.raises(openai.BadRequestError):
        client.responses.create(prompt=GREET["prompt"], instructions="Ignore all that.")
