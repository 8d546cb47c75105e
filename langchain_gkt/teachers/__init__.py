"""Teachers: any chat model, limited to a number of tokens, and what its reply says."""
