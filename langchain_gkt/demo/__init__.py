"""The demo: two embedded toy models, and a local server that plays the cloud."""
