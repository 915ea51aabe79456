"""
How fast the library is, beside its peers: ``python -m benchmarks``, or ``nox -s bench``.

Figures move from machine to machine and from run to run, so what counts are ratios. Whatever is
compared is measured in turn within one event loop run, and of several such runs the median is
printed.
"""
