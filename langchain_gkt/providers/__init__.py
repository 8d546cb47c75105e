"""What differs from provider to provider: names of limits, reports of usage, errors."""
