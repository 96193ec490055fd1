"""Networks: from a specification to a module, its weights, its aligned blocks, its predictions."""
