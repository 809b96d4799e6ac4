"""Prints every object that the official SDKs' request types can hold, as JSON: for each endpoint a graph
of object types, with each field, the types its values may be, and each value of its discriminators."""

import collections.abc
import json
import sys
import types
import typing
from typing import get_args, get_origin

import anthropic.types as a
import anthropic.types.message_create_params as messages
import anthropic.types.beta.message_create_params as beta_messages
import openai.types.chat.completion_create_params as chat
import openai.types.completion_create_params as completion
import openai.types.embedding_create_params as embedding
import openai.types.responses.response_create_params as responses
from typing_extensions import get_type_hints, is_typeddict

seen = {}


def name_of(kind):
    return f"{kind.__module__}.{kind.__qualname__}"


def walk(kind, hints=None):
    """The parts of a type: names of objects, literals, and words for the rest."""
    origin = get_origin(kind)
    if is_typeddict(kind):
        add(kind)
        return [{"object": name_of(kind)}]
    wrappers = ("typing.Required", "typing.NotRequired", "typing_extensions.Required")
    if str(origin) in wrappers or origin is typing.Annotated:
        return walk(get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return [part for arm in get_args(kind) for part in walk(arm)]
    if origin is typing.Literal:
        return [{"literal": value} for value in get_args(kind)]
    if origin in (list, tuple, collections.abc.Iterable, collections.abc.Sequence) or "SequenceNotStr" in str(kind):
        return [{"list": [part for arm in get_args(kind) for part in walk(arm)]}]
    if origin in (dict, collections.abc.Mapping):
        return [{"map": walk(get_args(kind)[1])}]
    if kind in (str, int, float, bool, type(None), object):
        return [{"plain": getattr(kind, "__name__", str(kind))}]
    return [{"other": str(kind)}]


def add(kind):
    name = name_of(kind)
    if name in seen:
        return
    seen[name] = {}
    module = vars(sys.modules[kind.__module__])
    fields = get_type_hints(kind, globalns=module, include_extras=True)
    seen[name].update({field: walk(hint) for field, hint in fields.items()})


roots = {
    "chat_completions": [chat.CompletionCreateParamsNonStreaming, chat.CompletionCreateParamsStreaming],
    "completions": [completion.CompletionCreateParamsNonStreaming, completion.CompletionCreateParamsStreaming],
    "embeddings": [embedding.EmbeddingCreateParams],
    "responses": [responses.ResponseCreateParamsNonStreaming, responses.ResponseCreateParamsStreaming],
    "messages": [messages.MessageCreateParamsNonStreaming, messages.MessageCreateParamsStreaming,
                 beta_messages.MessageCreateParamsNonStreaming, beta_messages.MessageCreateParamsStreaming],
}
for kinds in roots.values():
    for kind in kinds:
        add(kind)
betas = [value for part in get_args(a.AnthropicBetaParam) for value in get_args(part)]
named = {root: [name_of(kind) for kind in kinds] for root, kinds in roots.items()}
json.dump({"betas": betas, "roots": named, "objects": seen}, sys.stdout)
