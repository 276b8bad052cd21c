"""Metrics on plain arrays; this package imports only numpy, scipy and scikit-learn."""
