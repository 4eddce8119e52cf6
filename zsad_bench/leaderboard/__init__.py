"""From result files to tables: the board, its speeds, comparisons, one table per question of the report.

May import ``results``, ``statistics`` and what they import. Start with ``board.py`` and ``tables.py``; ``series.py``
puts jobs together that differ in the seed only.
"""
