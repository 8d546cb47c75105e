"""One listener that follows the runs of guided calls, and what it knows of them."""
