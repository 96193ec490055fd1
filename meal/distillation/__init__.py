"""The MEAL objective: similarity and adversarial learning."""
