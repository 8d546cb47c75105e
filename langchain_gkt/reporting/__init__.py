"""What reports of costs and of evaluation are drawn with."""
