"""Servers on 127.0.0.1 to test against."""
