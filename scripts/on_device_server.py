"""The on-device model: llama.cpp's own HTTP server around one GGUF file, on 127.0.0.1.

Started by scripts/on-device-model; ends on SIGTERM or SIGINT. It is a small real model
for the example and the tests, not a serving set-up for production.
"""

import signal
import sys
import threading

import xllamacpp


def main(gguf: str, port: int, alias: str) -> None:
    stop = threading.Event()

    params = xllamacpp.CommonParams()
    params.model.path = gguf
    params.model_alias = {alias}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = 2048
    params.n_parallel = 2
    params.cpuparams.n_threads = 1
    params.endpoint_metrics = True
    params.use_jinja = True
    # The same model embeds texts too: it was not trained to do it well, but what comes is real.
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    print(f"serving {alias} at {server.listening_address}", flush=True)
    stop.wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
