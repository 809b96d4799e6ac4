"""Embeddings by a real model, and by a backend that has none."""

import math

import openai

from common import DEVICE, FRANKFURT, openai_client, rejected

client = openai_client(max_retries=2)
texts = ["Good morning", "The parcel arrives on Tuesday"]

# The SDK asks for base64 where nobody says what to ask for, and decodes it.
packed = client.embeddings.create(model=DEVICE, input=texts)
plain = client.embeddings.create(model=DEVICE, input=texts, encoding_format="float")
assert len(packed.data) == len(plain.data) == 2
for one, other in zip(packed.data, plain.data):
    assert len(one.embedding) == len(other.embedding) == 576
    assert all(math.isclose(a, b, abs_tol=1e-5) for a, b in zip(one.embedding, other.embedding))
assert packed.data[0].embedding != packed.data[1].embedding
assert plain.usage.prompt_tokens > 0
assert len(client.embeddings.create(model="assistant", input="Hello").data) == 1

unsupported = rejected(
    openai.InternalServerError, lambda: client.embeddings.create(model=FRANKFURT, input="Hello")
)
assert unsupported.status_code == 502, unsupported
assert unsupported.code == "upstream_unsupported", unsupported.body
assert unsupported.response.headers["x-should-retry"] == "false"
