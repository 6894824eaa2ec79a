"""What a model knows of each fact, before it is taught and afterwards: the verb know."""
