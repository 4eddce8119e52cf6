"""Files to pixels: images and masks as people have them, and how they become the encoder's input.

May import ``core``. Start with ``images.py``, the only place where Pillow meets a user's files.
"""
