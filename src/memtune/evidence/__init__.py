"""Instruments: what a model knows, what tuning breaks, what an answer is worth, and where it comes from.

Each verb is one function in a module of its name, as those of the main job are:

knowledge/   know: what the model knows of each fact, before and after
storage/     capacity: what a memory can hold, and what it leaves alone
truth/       score: how much of a long answer the facts support
mechanism/   explain, detect: where an answer comes from, and whether a wrong one can be told
rewinding/   guard: an answer that is taken back
cost.py  forecast.py         what plan says of operations, seconds and energy, and what came of it
search.py  retrieval.py      facts found by their words, and put into a prompt
likelihood.py  training.py  lora.py  synthetic.py   teacher-forced passes, the control that trains, made-up facts
"""
