"""What the scripts share: clients of the official SDKs, and ways to say what must happen."""

import os
import time
import urllib.request

import anthropic
import openai

URL = os.environ["LEXGATE_URL"]
KEY = os.environ["LEXGATE_KEY"]
GERMAN = {"x-lexgate-data": "dpv-pd:Contact", "x-lexgate-subjects": "DE"}
MESSAGES = [{"role": "user", "content": "Good morning"}]
DEVICE = "smollm2@laptop"
FRANKFURT = "mistral-small@dc-frankfurt"
SINGAPORE = "qwen3-32b@dashscope-sg"


def openai_client(kind=openai.OpenAI, **options):
    """A client of which only the address and the claims are not as its users have it."""
    options = {"max_retries": 0, "timeout": 60} | options
    return kind(base_url=f"{URL}/v1", api_key=KEY, default_headers=GERMAN, **options)


def anthropic_client(kind=anthropic.Anthropic, **options):
    """The same by Anthropic."""
    options = {"max_retries": 0, "timeout": 60} | options
    return kind(base_url=URL, api_key=KEY, default_headers=GERMAN, **options)


def rejected(kind, call):
    """The error that `call` raises, which must be of this kind and no other."""
    try:
        call()
    except (openai.OpenAIError, anthropic.AnthropicError) as error:
        assert type(error) is kind, repr(error)
        return error
    raise AssertionError(f"no {kind.__name__}")


def wait_until_open(count):
    """Waits until Lexgate has `count` calls open, so that what is cancelled has begun."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(200):
        metrics = opener.open(f"{URL}/metrics").read().decode()
        if f"lexgate_open_dispatches {count}" in metrics.splitlines():
            return
        time.sleep(0.05)
    raise AssertionError(f"there are never {count} calls open")


def text_of(chunks):
    """The text of a streamed chat."""
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
