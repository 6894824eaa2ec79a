"""An answer that is taken back and written again: the verb guard."""
