"""What method files are made of: maps, matching, mutual scores, losses, draws, checked settings.

May import ``core`` and ``contract``. Start with ``matching.py`` and ``maps.py``.
"""
