"""One job: from a configuration to a result file per category.

May import everything below; nothing of ``leaderboard`` beside it. Start with ``job.py``; ``identity.py`` decides what
is kept.
"""
