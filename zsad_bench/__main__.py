"""``python -m zsad_bench``, see :mod:`zsad_bench.cli.main`."""

from zsad_bench.cli.main import command

if __name__ == "__main__":
    command()
