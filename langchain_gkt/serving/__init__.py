"""An OpenAI-compatible HTTP server in front of a chain. Build it with `serving.app.build_app`.

Importing this package loads no web framework. Its modules need the extra ``server``.
"""
