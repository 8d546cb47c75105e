"""Asking models for answers, and keeping every one of them in a run folder."""
