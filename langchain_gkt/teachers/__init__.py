"""Teachers: any chat model held to a number of tokens, and what its reply says."""
