"""Figures of results, one function a question.

May import ``leaderboard`` and everything below. Start with ``plots.py``, which also holds the common style.
"""
