// Clients that wait no longer: timeouts, closed streams and aborted calls.

import assert from "node:assert/strict";

import { OpenAI, client, device, messages, rejected, untilOpen } from "./common.mjs";

const call = { model: device, messages };

const impatient = client({ timeout: 2_000, maxRetries: 1 });
await rejected(OpenAI.APIConnectionTimeoutError, impatient.chat.completions.create(call));
await untilOpen(0);

const chat = client().chat.completions;
for await (const chunk of await chat.create({ ...call, stream: true })) {
  assert.equal(chunk.choices[0].delta.content, "one");
  await untilOpen(1);
  break;
}
await untilOpen(0);

const whole = new AbortController();
const aborted = rejected(OpenAI.APIUserAbortError, chat.create(call, { signal: whole.signal }));
await untilOpen(1);
whole.abort();
await aborted;
await untilOpen(0);

const streamed = new AbortController();
const { signal } = streamed;
const chunks = await chat.create({ ...call, stream: true }, { signal });
const texts = [];
setTimeout(async () => {
  await untilOpen(1);
  streamed.abort();
}, 0);
for await (const chunk of chunks) texts.push(chunk.choices[0].delta.content);
assert.deepEqual(texts, ["one"], "the SDK ends an aborted stream without a word");
await untilOpen(0);
