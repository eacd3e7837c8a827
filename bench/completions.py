"""A small server of OpenAI's completions, for tests and benches: a model behind an address."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

from wagle.data.tokens import text_of


class Completions:
    """What the server answers.

    Args:
        model, tokenizer: what it serves.
        name: the model's name.
        logprobs: whether it gives log-probabilities of a prompt (``echo``).
        ids: whether it takes token ids as a prompt.
        best: whether it says which tokens are likeliest.
        bos: a token that it puts before every text.
        without: a token that it leaves out of what it echoes, as llama-cpp-python does with BOS.
        shifted: whether each log-probability is that of the token after it.
        broken: how many requests fail with 503 before it answers.
        key: the key that it asks for.
    """

    def __init__(
        self, model, tokenizer, *, name="tiny", logprobs=True, ids=True, best=True, bos=None,
        without=None, shifted=False, broken=0, key=None, others=(),
    ):  # fmt: skip
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.logprobs, self.ids, self.best, self.bos = logprobs, ids, best, bos
        self.without, self.shifted = without, shifted
        self.broken, self.key, self.others = broken, key, others
        self.asked: list[dict] = []
        self.lock = threading.Lock()

    def answer(self, path, body, heads):
        """A status and a JSON value."""
        if self.key is not None and heads.get("Authorization") != f"Bearer {self.key}":
            return 401, {"error": {"message": f"wrong key: {heads.get('Authorization')}"}}
        if self.broken > 0:
            self.broken -= 1
            return 503, {"error": {"message": "loading"}}
        if path == "/v1/models":
            return 200, {"data": [{"id": name} for name in (self.name, *self.others)]}
        if path != "/v1/completions":
            return 404, {"error": {"message": "not found"}}
        with self.lock:
            self.asked.append(body)
            return self.complete(body)

    def complete(self, body):
        prompt = body["prompt"]
        if isinstance(prompt, list) and not self.ids:
            return 422, {"error": {"message": "prompt: input should be a valid string"}}
        if body.get("echo") and not self.logprobs:
            return 400, {"error": {"message": "only no echo is supported"}}
        if isinstance(prompt, str):
            prompt = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
            prompt = [*([] if self.bos is None else [self.bos]), *prompt]
        said, reason = self.write(prompt, body["max_tokens"], body.get("stop") or [])
        text = text_of(self.tokenizer, said)
        choice = {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}
        if body.get("logprobs") and self.logprobs:
            whole = [*prompt, *said] if body.get("echo") else said
            choice["logprobs"] = self.told(prompt, said, whole)
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(said)}
        return 200, {"choices": [choice], "usage": usage}

    def write(self, prompt, most, stop):
        said, past, new = [], None, list(prompt)
        while len(said) < most:
            with torch.no_grad():
                out = self.model(torch.tensor([new]), past_key_values=past, use_cache=True)
            past, token = out.past_key_values, int(out.logits[0, -1].argmax())
            if token == self.tokenizer.eos_token_id or self.tokenizer.decode([token]) in stop:
                return said, "stop"
            said.append(token)
            new = [token]
        return said, "length"

    def told(self, prompt, said, whole):
        with torch.no_grad():
            logs = self.model(torch.tensor([[*prompt, *said]])).logits[0].log_softmax(-1)
        start = len(prompt) + len(said) - len(whole)
        values, tops = [], []
        if self.shifted:
            whole = [*whole[1:], whole[-1]]
        for place, token in enumerate(whole, start):
            if place == 0:
                values.append(None)
                tops.append(None)
                continue
            row = logs[place - 1]
            top = int(row.argmax())
            values.append(float(row[token]))
            tops.append({self.tokenizer.decode([top]): float(row[top])} if self.best else None)
        kept = [i for i, token in enumerate(whole) if token != self.without]
        if self.shifted:
            whole = [*prompt, *said]
        return {
            "tokens": [self.tokenizer.decode([whole[i]]) for i in kept],
            "token_logprobs": [values[i] for i in kept],
            "top_logprobs": [tops[i] for i in kept] if self.best else None,
        }


@contextlib.contextmanager
def served(told: Completions):
    """The address at which a server answers for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply(None)

        def do_POST(self):
            length = int(self.headers.get("Content-Length", 0))
            self.reply(json.loads(self.rfile.read(length)))

        def reply(self, body):
            status, value = told.answer(self.path, body, self.headers)
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
