"""Anthropic's messages with a backend that a test plays: tool calls, errors, retries, broken streams."""

import time

import anthropic

from common import (
    DEVICE,
    FRANKFURT,
    MESSAGES,
    SINGAPORE,
    anthropic_client,
    rejected,
    wait_until_open,
)

client = anthropic_client(max_retries=2)
call = {"model": DEVICE, "messages": MESSAGES, "max_tokens": 8}
wanted = {"city": "München", "days": [1, 2.5]}

tools = [{"name": "weather", "input_schema": {"type": "object", "properties": {}}}]
played = {"metadata": {"user_id": "tool"}, "tools": tools}
with client.messages.stream(**call, **played) as stream:
    final = stream.get_final_message()
assert final.stop_reason == "tool_use" and final.content[0].input == wanted, final

denied = rejected(
    anthropic.PermissionDeniedError,
    lambda: client.messages.create(**call | {"model": SINGAPORE}),
)
assert denied.body["type"] == "error", denied.body
assert denied.body["error"]["type"] == "permission_error", denied.body
assert denied.body["error"]["code"] == "eu-gdpr-44", denied.body
assert denied.body["error"]["decision"]["decision"] == "deny", denied.body
assert denied.request_id, "the SDK finds request-id"
unknown = rejected(
    anthropic.NotFoundError, lambda: client.messages.create(**call | {"model": "gpt-9"})
)
assert unknown.body["error"]["type"] == "not_found_error", unknown.body
rejected(
    anthropic.BadRequestError,
    lambda: client.messages.create(**call, metadata={"lexgate_subjects": "SA"}),
)
rejected(
    anthropic.AuthenticationError,
    lambda: client.with_options(api_key="wrong").messages.create(**call),
)

# Nobody listens there.
started = time.monotonic()
down = rejected(
    anthropic.ServiceUnavailableError,
    lambda: client.messages.create(**call | {"model": FRANKFURT}),
)
assert down.body["error"]["type"] == "overloaded_error", down.body
assert time.monotonic() - started >= 2, "two retries, each after the second that was asked for"

once = anthropic_client()
for scenario in ("cut", "ends", "error"):
    texts = []
    try:
        with once.messages.stream(**call, metadata={"user_id": scenario}) as stream:
            for text in stream.text_stream:
                texts.append(text)
    except anthropic.APIError as error:
        assert "broke off" in error.message or "no memory" in error.message, error
    else:
        raise AssertionError(f"{scenario}: it looks complete")
    assert texts == ["one ", "two"], (scenario, texts)

hanging = {"metadata": {"user_id": "hangs"}}
impatient = anthropic_client(timeout=2)
rejected(anthropic.APITimeoutError, lambda: impatient.messages.create(**call, **hanging))
wait_until_open(0)
with once.messages.stream(**call, **hanging) as stream:
    assert next(stream.text_stream) == "one "
    wait_until_open(1)
wait_until_open(0)
