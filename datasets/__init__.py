"""Dataset plugins: a module a layout, configured by ``conf/dataset``.

What they are built from lies in ``reading``, the demo that the project draws itself in ``demo``.
"""
