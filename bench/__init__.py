"""Benchmarks: each figure is this project beside a reference, interleaved in the same run.

Never in the image. docs/BENCHMARKS.md says what is measured and how to read it; `make bench` runs it.
"""
