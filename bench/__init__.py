"""Benchmarks: ``make bench``. Each prints its figures beside a baseline that is measured in the same run."""
