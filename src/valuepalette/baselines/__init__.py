"""Baselines: what one would do instead of solving for levels, each judged on the same prompts as a palette.

A baseline returns what every method does: a solution, answers, or an engine that gives them.
"""
