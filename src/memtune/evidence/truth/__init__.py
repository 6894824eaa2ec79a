"""How much of a long answer the facts support: the verb score."""
