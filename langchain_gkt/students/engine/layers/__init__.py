"""Layers that compute what torch's own do, faster on some processors."""
