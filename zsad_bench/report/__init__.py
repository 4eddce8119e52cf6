"""The report of results folders: figures, tables and one page, from result files alone.

May import ``leaderboard`` and everything below. Start with ``write.py``; the command is ``python -m
zsad_bench.report``.
"""
