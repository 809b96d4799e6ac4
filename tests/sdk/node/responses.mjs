// Responses of a real model: whole, streamed, with tools; and what is refused.

import assert from "node:assert/strict";

import { OpenAI, all, client, rejected, singapore } from "./common.mjs";

const { responses } = client();
const limits = { max_output_tokens: 8, temperature: 0 };
const short = { model: "assistant", input: "Good morning", store: false, ...limits };

const response = await responses.create(short);
assert.ok(response.output_text && response.status);
assert.ok(response.usage.output_tokens > 0);
assert.ok(response._request_id);

const events = await all(await responses.create({ ...short, stream: true }));
assert.equal(events[0].type, "response.created");
const deltas = events.filter(({ type }) => type === "response.output_text.delta");
const last = events.at(-1);
assert.equal(last.type, "response.completed");
assert.equal(deltas.map(({ delta }) => delta).join(""), last.response.output[0].content[0].text);
assert.ok(last.response.usage.output_tokens > 0);

const parameters = { type: "object", properties: {} };
const tools = [{ type: "function", name: "weather", parameters }];
assert.ok((await responses.create({ ...short, tools })).output.length);

const background = responses.create({ ...short, background: true });
assert.equal((await rejected(OpenAI.BadRequestError, background)).param, "background");
const denied = responses.create({ ...short, model: singapore });
assert.equal((await rejected(OpenAI.PermissionDeniedError, denied)).code, "eu-gdpr-44");
await rejected(OpenAI.NotFoundError, responses.retrieve("resp_1"));
