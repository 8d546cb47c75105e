"""What a run found: sums, statistics, choices, tables, charts and reports."""
