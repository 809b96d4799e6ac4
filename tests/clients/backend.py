"""A backend for scripts/fuzz-api: each of the five APIs, answered politely, whole and streamed.

    backend.py PORT
"""

import http.server
import json
import sys

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
READ = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
MODEL = "smollm2-135m"


def message(text):
    return {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}


WHOLE = {
    "/v1/chat/completions": {"object": "chat.completion", "choices": [message("Hi")], "usage": USAGE},
    "/v1/completions": {
        "object": "text_completion",
        "choices": [{"index": 0, "text": "Hi", "finish_reason": "stop"}],
        "usage": USAGE,
    },
    "/v1/embeddings": {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    },
    "/v1/responses": {"object": "response", "status": "completed", "output": [], "usage": READ},
    "/v1/messages/count_tokens": {"input_tokens": 3},
    "/v1/messages": {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "usage": READ,
    },
}


def events(path, model):
    whole = {"id": "one", "model": model, **WHOLE[path]}
    if path == "/v1/responses":
        return [{"type": "response.completed", "sequence_number": 0, "response": whole}]
    if path == "/v1/messages":
        start = {**whole, "content": [], "stop_reason": None}
        return [
            {"type": "message_start", "message": start},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": READ},
            {"type": "message_stop"},
        ]
    delta = {"delta": {"content": "Hi"}, "text": "Hi", "index": 0, "finish_reason": "stop"}
    return [{"id": "one", "model": model, "choices": [delta], "usage": USAGE}]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        # It serves each model that it is asked for, and so has no list.
        self.answer({"error": {"message": "there is no list"}}, 404)

    def do_POST(self):
        asked = self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.loads(asked)
        if not body.get("stream") or self.path == "/v1/embeddings":
            return self.answer({"id": "one", "model": body.get("model", MODEL), **WHOLE[self.path]})
        written = "".join(
            f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
            if "type" in event
            else f"data: {json.dumps(event)}\n\n"
            for event in events(self.path, body.get("model", MODEL))
        )
        if not self.path.endswith(("responses", "messages")):
            written += "data: [DONE]\n\n"
        self.send(written.encode(), "text/event-stream")

    def answer(self, value, status=200):
        self.send(json.dumps(value).encode(), "application/json", status)

    def send(self, content, kind, status=200):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
