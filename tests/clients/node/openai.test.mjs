// The OpenAI SDK, unchanged but for `baseURL` and key.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

import { apiKey, baseURL, exchange, greet, greeted, narrowKey, question, sentUpstream } from "./gateway.mjs";

const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const ask = { model: "any", messages: [] };
const hello = [{ role: "user", content: "Hello" }];

async function textOf(stream) {
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  return text;
}

const headers = {
  "x-promptgate-prompt": "support/greet",
  "x-promptgate-variables": JSON.stringify(question),
};
for (const [how, body, options] of [
  ["in the body", { ...ask, ...greet }],
  ["by flat fields", { ...ask, prompt_id: "support/greet", inputs: question }],
  ["as the model", { model: "prompt/support/greet", messages: [], variables: question }],
  ["by headers", ask, { headers }],
]) {
  test(`prompt named ${how} is applied`, async () => {
    const answer = await client.chat.completions.create(body, options);
    assert.ok(answer.choices[0].message.content);
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.deepEqual(await sentUpstream(), {
      model: "mock-model",
      messages: greeted,
      temperature: 0.2,
      max_tokens: 40,
    });
  });
}

test("request id is that of the record", async () => {
  const { data, response, request_id } = await client.chat.completions.create({ ...ask, ...greet }).withResponse();
  assert.equal(data._request_id, request_id);
  assert.equal(response.headers.get("x-promptgate-exchange-id"), request_id);
  const record = await exchange(request_id);
  assert.equal(record.prompt_id, "support/greet");
  assert.equal(record.outcome, "ok");
  assert.equal(record.output_tokens, data.usage.completion_tokens);
  assert.equal(record.response_id, data.id);
});

test("fields that SDKs send unasked change nothing", async () => {
  const prompt = { ...greet.prompt, version: null, environment: null };
  const unasked = { stream: false, tools: [], include: [], tool_choice: null, n: null };
  const call = client.chat.completions.create({ model: "gpt-4o", messages: [], ...unasked, prompt });
  const { response } = await call.withResponse();
  assert.equal(response.headers.get("x-promptgate-ignored"), null);
  assert.deepEqual((await sentUpstream()).messages, greeted);
});

test("empty tools leave the saved tools", async () => {
  const weather = { prompt: { id: "support/weather", variables: { question: "Rain?" } } };
  const answer = await client.chat.completions.create({ ...ask, ...weather, tools: [] });
  assert.equal(answer.choices[0].message.tool_calls[0].function.name, "saved_weather");
});

test("stream is the whole answer without the usage nobody asked for", async () => {
  const whole = await client.chat.completions.create({ ...ask, ...greet });
  const call = client.chat.completions.create({ ...ask, ...greet, stream: true });
  const { data: stream, request_id } = await call.withResponse();
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), whole.choices[0].message.content);
  assert.ok(chunks.every((chunk) => !chunk.usage));
  const record = await exchange(request_id);
  assert.equal(record.streaming, true);
  assert.equal(record.output_tokens, whole.usage.completion_tokens);
});

test("usage is in the last chunk if asked for", async () => {
  const options = { stream: true, stream_options: { include_usage: true } };
  let last;
  for await (const chunk of await client.chat.completions.create({ ...ask, ...greet, ...options })) last = chunk;
  assert.deepEqual(last.choices, []);
  assert.ok(last.usage.completion_tokens > 0);
});

test("stream helper assembles a tool call", async () => {
  const weather = { prompt: { id: "support/weather", variables: { question: "Rain?" } } };
  const answer = await client.chat.completions.stream({ ...ask, ...weather }).finalChatCompletion();
  assert.equal(answer.choices[0].message.tool_calls[0].function.name, "saved_weather");
});

test("structured output is parsed", async () => {
  const text = encodeURIComponent('{"number": 17}');
  const answer = await client.chat.completions.parse({
    model: `mock-model?text=${text}`,
    messages: hello,
    response_format: zodResponseFormat(z.object({ number: z.number() }), "order"),
    prompt: { id: "support/chat" },
  });
  assert.deepEqual(answer.choices[0].message.parsed, { number: 17 });
});

test("models are listed", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ["mock-model", "late-model", "unreachable-model"]);
});

const named = (prompt) => ({ ...ask, prompt: { id: "support/greet", variables: question, ...prompt } });
for (const [code, body, exception, options] of [
  ["contradiction", named({ version: 1, environment: "staging" }), OpenAI.BadRequestError],
  ["invalid_field", { ...ask, prompt: "support/greet" }, OpenAI.BadRequestError],
  ["prompt_not_found", named({ id: "support/nobody" }), OpenAI.NotFoundError],
  ["nothing_live", named({ id: "support/draft" }), OpenAI.NotFoundError],
  ["model_not_found", { model: "no-such-model", messages: hello }, OpenAI.NotFoundError],
  ["invalid_variables", named({ variables: {} }), OpenAI.UnprocessableEntityError],
  ["invalid_api_key", named(), OpenAI.AuthenticationError, { apiKey: "pg_wrong" }],
  ["not_allowed", named({ version: 1 }), OpenAI.PermissionDeniedError, { apiKey: narrowKey }],
  ["upstream_unreachable", { model: "unreachable-model", messages: hello }, OpenAI.InternalServerError],
  ["upstream_timeout", { model: "late-model", messages: hello }, OpenAI.InternalServerError],
]) {
  test(`refusal ${code} is typed and recorded`, async () => {
    const error = await caught(client.withOptions(options ?? {}).chat.completions.create(body));
    assert.ok(error instanceof exception, error);
    assert.equal(error.code, code);
    const record = await exchange(error.requestID);
    assert.equal(record.error_code, code);
    assert.equal(record.status_code, error.status);
  });
}

test("rate limit is typed and its retries are recorded", async () => {
  const body = { model: "mock-model?status=429&retry-after=1", messages: hello };
  const began = Date.now();
  const error = await caught(client.chat.completions.create(body, { maxRetries: 1 }));
  assert.ok(error instanceof OpenAI.RateLimitError, error);
  assert.ok(Date.now() - began >= 1000, "the SDK waits as Retry-After says");
  assert.equal((await exchange(error.requestID)).client_retries, 1);
});

for (const fault of ["error-in-stream=3", "cut=3"]) {
  test(`failure inside a stream is an error, not an end: ${fault}`, async () => {
    const stream = await client.chat.completions.create({
      model: `mock-model?${fault}`,
      messages: hello,
      stream: true,
    });
    assert.ok((await caught(textOf(stream))) instanceof OpenAI.APIError);
  });
}

test("aborted stream is recorded as the client leaving", async () => {
  const body = { model: "mock-model?chunk-interval=20ms&tokens=500", messages: hello, stream: true };
  const { data: stream, request_id } = await client.chat.completions.create(body).withResponse();
  let seen = 0;
  for await (const _ of stream) if (++seen === 5) break;
  assert.equal((await exchange(request_id)).outcome, "client_disconnected");
});

test("client that times out gets its own exception", async () => {
  const call = client.chat.completions.create(
    { model: "mock-model?latency=30s", messages: hello },
    { timeout: 300 },
  );
  assert.ok((await caught(call)) instanceof OpenAI.APIConnectionTimeoutError);
});

async function caught(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}
