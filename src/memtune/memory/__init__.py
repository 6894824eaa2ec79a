"""The memory: experts, router, gate, attention, fit. Needs torch alone, so that a bundle can carry these very files."""
