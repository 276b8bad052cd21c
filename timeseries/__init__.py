"""RF captures and multivariate time series.

Rooms in the order in which data flows: `read`, `rf` (bursts, fingerprints, channels, simulator),
and `stages`, which declares them to the runner.
"""
