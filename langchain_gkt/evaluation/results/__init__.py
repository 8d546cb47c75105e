"""What a run shows: sums, curves, choices, tables and charts."""
