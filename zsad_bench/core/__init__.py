"""What knows nothing of the subject: errors, files, names, seeds, checksums, the machine, the console.

May import nothing of this package. Start with ``errors.py`` and ``files.py``; every other room builds on them.
"""
