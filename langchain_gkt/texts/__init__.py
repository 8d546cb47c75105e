"""Rules about text: where it may be cut."""
