"""Programs and processes of their own."""
