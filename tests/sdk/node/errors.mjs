// What goes wrong, in the SDK's own errors, and what of it the SDK tries again.

import assert from "node:assert/strict";

import { OpenAI, client, device, frankfurt, messages, rejected, singapore } from "./common.mjs";

const chat = client({ maxRetries: 2 }).chat.completions;

const denied = await rejected(
  OpenAI.PermissionDeniedError,
  chat.create({ model: singapore, messages }),
);
assert.deepEqual([denied.type, denied.code], ["policy_denied", "eu-gdpr-44"]);
assert.equal(denied.error.decision.decision, "deny");
assert.ok(denied.error.decision.record.leaf);
assert.ok(denied.requestID);

const unknown = await rejected(OpenAI.NotFoundError, chat.create({ model: "gpt-9", messages }));
assert.equal(unknown.code, "model_not_found");
const metadata = { lexgate_subjects: "SA" };
const contradiction = await rejected(
  OpenAI.BadRequestError,
  chat.create({ model: device, messages, metadata }),
);
assert.equal(contradiction.param, "x-lexgate-subjects");
const stranger = client({ apiKey: "wrong", maxRetries: 2 }).chat.completions;
await rejected(OpenAI.AuthenticationError, stranger.create({ model: device, messages }));

// Nobody listens there.
const started = performance.now();
const down = await rejected(
  OpenAI.InternalServerError,
  chat.create({ model: frankfurt, messages }),
);
assert.deepEqual([down.status, down.code], [503, "upstream_down"]);
const waited = performance.now() - started;
assert.ok(waited >= 1_990, `two retries, each after the second that was asked for: ${waited}`);

const told = (scenario, maxRetries) =>
  chat.create({ model: device, messages, user: scenario }, { maxRetries });
assert.equal((await rejected(OpenAI.RateLimitError, told("busy", 1))).code, "upstream_busy");
const failed = await rejected(OpenAI.InternalServerError, told("fails", 1));
assert.deepEqual([failed.status, failed.code], [502, "upstream_error"]);
const long = await rejected(OpenAI.BadRequestError, told("too_long", 2));
assert.match(long.message, /too long/, "the backend's own word");
