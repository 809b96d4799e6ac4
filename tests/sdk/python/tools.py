"""Tool calls, whole and streamed, their answers, and an image: to a backend that a test plays."""

import sys

from common import DEVICE, openai_client

chat = openai_client().chat.completions
parameters = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "auch „Köln“"}},
    "required": ["city"],
}
call = {
    "model": DEVICE,
    "messages": [{"role": "user", "content": "How is the weather in München and الرياض?"}],
    "tools": [
        {
            "type": "function",
            "function": {"name": "weather", "strict": True, "parameters": parameters},
        }
    ],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "parallel_tool_calls": True,
}
wanted = ['{"city": "München"}', '{"city":"الرياض"}']

message = chat.create(**call).choices[0].message
assert message.content is None
assert [call.function.arguments for call in message.tool_calls] == wanted, message

streaming = {"stream": True, "stream_options": {"include_usage": True}}
with chat.with_streaming_response.create(**call, **streaming) as response:
    # The test compares it with what it sent.
    sys.stdout.buffer.write(b"".join(response.iter_bytes()))

arguments, names = ["", ""], ["", ""]
reasons = []
for chunk in chat.create(**call, stream=True):
    for choice in chunk.choices:
        for delta in choice.delta.tool_calls or []:
            arguments[delta.index] += delta.function.arguments
            names[delta.index] += delta.function.name or ""
        reasons.append(choice.finish_reason)
assert arguments == wanted and names == ["weather", "weather"], (arguments, names)
assert reasons[-1] == "tool_calls", reasons

image = "data:image/png;base64," + "iVBORw0KGgo" * 30_000
answers = [
    {"role": "tool", "tool_call_id": call.id, "content": '{"°C": 21.50}'}
    for call in message.tool_calls
]
picture = {
    "role": "user",
    "content": [
        {"type": "text", "text": "And here?"},
        {"type": "image_url", "image_url": {"url": image, "detail": "low"}},
    ],
}
spoken = message.model_dump(exclude_none=True)
completion = chat.create(**call | {"messages": [*call["messages"], spoken, *answers, picture]})
assert completion.choices[0].message.content == "Good morning"
