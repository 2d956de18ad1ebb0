"""The OpenAI SDK's asynchronous client."""

import asyncio

import openai

from conftest import GREET, QUESTION


def run(gateway, scenario):
    async def with_client():
        async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.keys["app"]) as client:
            return await scenario(client)

    return asyncio.run(with_client())


def test_async_stream_is_the_whole_answer(gateway):
    async def scenario(client):
        whole = await client.chat.completions.create(model="any", messages=[], extra_body=GREET)
        stream = await client.chat.completions.create(model="any", messages=[], extra_body=GREET, stream=True)
        return whole, [chunk.choices[0].delta.content or "" async for chunk in stream]

    whole, parts = run(gateway, scenario)
    assert "".join(parts) == whole.choices[0].message.content


def test_many_at_once_get_their_own_answers_and_records(gateway, prompt_of):
    prompt = prompt_of(
        {
            "messages": [{"role": "user", "content": "{{ question }}"}],
            "variables": {"question": {"type": "string"}},
            "model": "mock-model?echo",
        }
    )

    async def ask(client, number):
        reference = {"id": prompt, "variables": QUESTION | {"question": f"number {number}"}}
        answer = await client.chat.completions.create(model="any", messages=[], extra_body={"prompt": reference})
        return number, answer

    async def scenario(client):
        return await asyncio.gather(*(ask(client, number) for number in range(100)))

    answers = run(gateway, scenario)
    for number, answer in answers:
        assert f'"number {number}"' in answer.choices[0].message.content
    ids = {answer._request_id for _, answer in answers}
    records = gateway.exchanges(prompt, 100)
    assert {record["exchange_id"] for record in records} == ids and len(ids) == 100


def test_cancelled_task_is_recorded_as_the_client_leaving(gateway, prompt_of):
    prompt = prompt_of({"messages": [{"role": "user", "content": "Hello"}], "model": "mock-model?latency=30s"})

    async def scenario(client):
        asked = gateway.requests_upstream()
        call = client.chat.completions.create(model="any", messages=[], extra_body={"prompt": {"id": prompt}})
        task = asyncio.create_task(call)
        while gateway.requests_upstream() == asked:
            await asyncio.sleep(0.01)
        task.cancel()
        return await asyncio.gather(task, return_exceptions=True)

    (ended,) = run(gateway, scenario)
    assert isinstance(ended, asyncio.CancelledError)
    (record,) = gateway.exchanges(prompt, 1)
    assert record["outcome"] == "client_disconnected"
