"""Drawing tools for reports of costs and of evaluation."""
