"""From result files to tables: the board, its speeds, comparisons, one table per question of the report.

May import everything below ``results``. Start with ``board.py`` and ``tables.py``.
"""
