"""Serves the embedded pair, and asks it with OpenAI's client. Takes some seconds."""

from __future__ import annotations

import subprocess
import sys
import threading

from openai import OpenAI

from langchain_gkt.serving.run import bind

QUESTION = (
    "Ben has 29 shells. A parcel brings 15. He doubles them. How many shells does Ben have now?"
)


def free_port() -> int:
    """Return a port that is free now."""
    with bind("127.0.0.1", 0) as listener:
        return int(listener.getsockname()[1])


def main() -> None:
    """Start the server, ask each of its models, and stop it."""
    port = free_port()
    command = [sys.executable, "-m", "langchain_gkt", "serve", "--port", str(port)]
    command += ["--teacher", "demo"]  # <- "openai:gpt-4o-mini", or what init_chat_model knows
    command += ["--student", "demo"]  # <- a Hugging Face model: a folder or hub id
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        for line in server.stderr:
            print(line, end="")
            if "Started" in line:
                break
        threading.Thread(target=server.stderr.read, daemon=True).start()
        client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=5)
        for model in client.models.list():
            reply = client.chat.completions.create(
                model=model.id, messages=[{"role": "user", "content": QUESTION}]
            )
            print(f"{model.id}: {reply.choices[0].message.content}")
            print(f"  finished by the {reply.gkt['finished_by']}, {reply.gkt['usd']} US dollars")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
