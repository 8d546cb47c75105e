"""What the runs of the models and of the chain report, and to which handlers."""
