"""What people do with the official OpenAI SDK, done through Lexgate."""

import os

import openai

client = openai.OpenAI(
    base_url=os.environ["LEXGATE_URL"],
    api_key=os.environ["LEXGATE_KEY"],
    default_headers={"x-lexgate-data": "dpv-pd:Contact", "x-lexgate-subjects": "DE"},
)
messages = [{"role": "user", "content": "Good morning"}]


def rejected(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


models = [model.id for model in client.models.list()]
assert "assistant" in models, models

whole = client.chat.completions.with_raw_response.create(
    model="assistant", messages=messages, max_tokens=8
)
assert whole.headers["x-lexgate-deployment"] == "smollm2@laptop", whole.headers
completion = whole.parse()
assert completion.choices[0].message.content
assert completion.usage.completion_tokens > 0
assert completion._request_id, "the SDK finds x-request-id"

chunks = list(
    client.chat.completions.create(
        model="assistant", messages=messages, max_tokens=8, stream=True
    )
)
assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices), chunks
assert not any(chunk.usage for chunk in chunks), "nobody asked for usage"

chunks = list(
    client.chat.completions.create(
        model="assistant",
        messages=messages,
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
        metadata={"lexgate_subjects": "DE"},
    )
)
assert chunks[-1].usage.completion_tokens > 0, chunks[-1]

denied = rejected(
    openai.PermissionDeniedError,
    lambda: client.chat.completions.create(
        model="qwen3-32b@dashscope-sg", messages=messages
    ),
)
assert denied.type == "policy_denied" and denied.code == "eu-gdpr-44", denied.body
assert denied.body["decision"]["decision"] == "deny", denied.body
assert denied.request_id

rejected(
    openai.NotFoundError,
    lambda: client.chat.completions.create(model="gpt-9", messages=messages),
)
contradiction = rejected(
    openai.BadRequestError,
    lambda: client.chat.completions.create(
        model="assistant", messages=messages, metadata={"lexgate_subjects": "SA"}
    ),
)
assert contradiction.param == "x-lexgate-subjects", contradiction.body
rejected(
    openai.AuthenticationError,
    lambda: client.with_options(api_key="wrong").models.list(),
)
