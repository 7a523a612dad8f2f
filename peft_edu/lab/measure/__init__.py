"""What is measured on a model: cost, forgetting, attention, parameters, parts."""
