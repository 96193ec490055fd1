"""MEAL: several trained networks distilled into one, by similarity and adversarial learning."""
