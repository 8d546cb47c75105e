"""The listener that follows the runs of guided calls, and its records of them."""
