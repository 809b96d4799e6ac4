"""What goes wrong, in the SDK's own errors, and what of it the SDK tries again."""

import time

import openai

from common import DEVICE, FRANKFURT, MESSAGES, SINGAPORE, openai_client, rejected

client = openai_client(max_retries=2)
chat = client.chat.completions

denied = rejected(
    openai.PermissionDeniedError, lambda: chat.create(model=SINGAPORE, messages=MESSAGES)
)
assert denied.type == "policy_denied" and denied.code == "eu-gdpr-44", denied.body
assert denied.body["decision"]["decision"] == "deny", denied.body
assert denied.body["decision"]["record"]["leaf"], denied.body
assert denied.request_id

unknown = rejected(openai.NotFoundError, lambda: chat.create(model="gpt-9", messages=MESSAGES))
assert unknown.code == "model_not_found", unknown.body
contradiction = rejected(
    openai.BadRequestError,
    lambda: chat.create(model=DEVICE, messages=MESSAGES, metadata={"lexgate_subjects": "SA"}),
)
assert contradiction.param == "x-lexgate-subjects", contradiction.body
rejected(
    openai.AuthenticationError,
    lambda: client.with_options(api_key="wrong").chat.completions.create(
        model=DEVICE, messages=MESSAGES
    ),
)

# Nobody listens there.
started = time.monotonic()
down = rejected(
    openai.InternalServerError, lambda: chat.create(model=FRANKFURT, messages=MESSAGES)
)
assert down.status_code == 503 and down.code == "upstream_down", down.body
assert time.monotonic() - started >= 2, "two retries, each after the second that was asked for"


def told(scenario, retries):
    again = client.with_options(max_retries=retries).chat.completions
    return again.create(model=DEVICE, messages=MESSAGES, user=scenario)


busy = rejected(openai.RateLimitError, lambda: told("busy", 1))
assert busy.code == "upstream_busy", busy.body
failed = rejected(openai.InternalServerError, lambda: told("fails", 1))
assert failed.status_code == 502 and failed.code == "upstream_error", failed.body
long = rejected(openai.BadRequestError, lambda: told("too_long", 2))
assert "too long" in long.message, "the backend's own word"
