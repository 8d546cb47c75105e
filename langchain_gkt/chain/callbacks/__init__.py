"""The reports of the models' and the chain's runs, and the handlers that get them."""
