"""Text as token ids: what users typed never becomes a control token."""
