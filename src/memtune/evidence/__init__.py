"""Instruments: what a model knows, what tuning breaks, what an answer is worth, and where it comes from.

Each verb is one function in a module of its name, as those of the main job are; the others are what it is made of:

know        groups, exemplars, fewshot, forced, sampled, slick, survey, transitions, control
capacity    pool, randomization, curve, regularization, choices, lora_arm, sweep, capacity_report, capacity_page
score       statements, verify, subjects, terms, longform, f1, score_page
explain     anatomy, lens, places, subject, depth, injection, tracer, trace, verdict, explained_page
detect      observables, detector
guard       values, tree, rewind, writer, meter
cost, forecast      what plan says, and what came of it
search, retrieval   facts found by their words, and put into a prompt
likelihood, training, lora, synthetic   shared: teacher-forced passes, the control that trains, made-up facts
"""
