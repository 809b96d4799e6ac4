// What the scripts share: the official SDK, clients of it, and ways to say what must happen.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

// The packages lie elsewhere, where an `import` by name would not find them.
const entry = pathToFileURL(`${process.env.LEXGATE_NODE_MODULES}/openai/index.mjs`);
export const { default: OpenAI } = await import(entry);

const { LEXGATE_URL: url, LEXGATE_KEY: apiKey } = process.env;
export const messages = [{ role: "user", content: "Good morning" }];
export const device = "smollm2@laptop";
export const frankfurt = "mistral-small@dc-frankfurt";
export const singapore = "qwen3-32b@dashscope-sg";

// A client of which only the address and the claims are not as its users have it.
export function client(options = {}) {
  return new OpenAI({
    baseURL: `${url}/v1`,
    apiKey,
    maxRetries: 0,
    timeout: 60_000,
    defaultHeaders: { "x-lexgate-data": "dpv-pd:Contact", "x-lexgate-subjects": "DE" },
    ...options,
  });
}

// The error that `promise` ends in, which must be of this kind and no other.
export async function rejected(kind, promise) {
  const error = await promise.then(
    () => assert.fail(`no ${kind.name}`),
    (error) => error,
  );
  assert.equal(error.constructor, kind, String(error.stack));
  return error;
}

// Waits until Lexgate has `count` calls open, so that what is cancelled has begun.
export async function untilOpen(count) {
  for (let turn = 0; turn < 200; turn += 1) {
    const metrics = await (await fetch(`${url}/metrics`)).text();
    if (metrics.split("\n").includes(`lexgate_open_dispatches ${count}`)) return;
    await sleep(50);
  }
  assert.fail(`there are never ${count} calls open`);
}

export async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

// The text of a streamed chat.
export function textOf(chunks) {
  return chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
}
