"""What a memory can hold, and what it leaves alone: the verb capacity."""
