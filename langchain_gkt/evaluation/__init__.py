"""Tasks, scoring and side-by-side comparison."""
