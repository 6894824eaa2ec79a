"""Teach a language-model checkpoint a file of facts."""
