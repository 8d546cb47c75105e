"""Requests: what is asked, how it waits, and how far it is."""
