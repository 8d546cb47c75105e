"""OpenAI's APIs, in both directions: requests as calls of a chain, answers as their JSON."""
