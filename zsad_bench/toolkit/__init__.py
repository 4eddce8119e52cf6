"""What method files are made of: taps, scores by text, maps, matching, mutual scores, losses, draws, types of keys.

May import ``core`` and ``contract``. Start with ``matching.py`` and ``maps.py``.
"""
