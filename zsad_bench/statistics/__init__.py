"""Statistics from arrays alone: histograms of maps, resamples, intervals, tests. No file is read or written here.

May import ``core`` and ``metrics``. Start with ``bootstrap.py``; ``docs/statistics.md`` says what intervals cover.
"""
