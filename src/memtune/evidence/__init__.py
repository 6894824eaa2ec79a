"""Instruments: what a model knows, what tuning breaks, what an answer is worth, and where it comes from.

Each verb is one function in a module of its name, as those of the main job are.
"""
