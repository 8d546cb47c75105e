"""An OpenAI-compatible HTTP server in front of a chain; `build_app` in `serving.app` makes it.

Importing this package loads no web framework. Its modules need the extra ``server``.
"""
