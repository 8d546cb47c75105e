"""Keys and values: of running requests, of earlier prompts, and of what requests share."""
