"""Teachers: any chat model, limited to a number of tokens, and how to read its reply."""
