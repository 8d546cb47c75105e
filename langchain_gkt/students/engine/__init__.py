"""The torch engine: continuous batching, shared KV caches, and the text side of a request."""
