"""The list of models, and one of them."""

import openai

from common import openai_client, rejected

client = openai_client()
ids = [model.id for model in client.models.list()]
assert "assistant" in ids and "smollm2-135m" in ids, ids
model = client.models.retrieve("assistant")
assert (model.id, model.owned_by, model.object) == ("assistant", "lexgate", "model"), model
assert client.models.retrieve("smollm2@laptop").id == "smollm2@laptop"
unknown = rejected(openai.NotFoundError, lambda: client.models.retrieve("gpt-9"))
assert unknown.code == "model_not_found", unknown.body
rejected(
    openai.AuthenticationError,
    lambda: client.with_options(api_key="wrong").models.list(),
)
