"""What the runs of the models and of the chain are told, and what they tell."""
