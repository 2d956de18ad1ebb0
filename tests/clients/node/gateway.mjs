// The gateway that `tests/clients/gateway.py` has started, and what it recorded.

import { setTimeout as sleep } from "node:timers/promises";

function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run tests/run node`);
  return value;
}

export const baseURL = setting("PROMPTGATE_BASE_URL");
export const apiKey = setting("PROMPTGATE_KEY_APP");
export const narrowKey = setting("PROMPTGATE_KEY_NARROW");

export const question = { question: "Where is my order?" };
export const greet = { prompt: { id: "support/greet", variables: question } };
export const greeted = [
  { role: "system", content: "You are Acme's assistant." },
  { role: "user", content: "Where is my order?" },
];

/** The body that the provider got last. */
export async function sentUpstream() {
  const stats = await (await fetch(`${setting("PROMPTGATE_MOCK_URL")}/__mock/stats`)).json();
  return JSON.parse(stats.last_request.body);
}

/** The record of an exchange, once it is there. */
export async function exchange(id) {
  const headers = { authorization: `Bearer ${setting("PROMPTGATE_TOKEN")}` };
  for (const deadline = Date.now() + 15_000; Date.now() < deadline; await sleep(50)) {
    const response = await fetch(`${setting("PROMPTGATE_ADMIN_URL")}/exchanges/${id}`, { headers });
    if (response.ok) return response.json();
  }
  throw new Error(`there is no record of ${id}`);
}
