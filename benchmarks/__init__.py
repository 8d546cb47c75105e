"""How fast the student engine is, against the ways it replaces."""
