"""Measure Outrider against baselines in one run, and check that what was measured is right.

A bench may import everything; nothing but `sidecar.bench`, which runs it, imports a bench.
"""
