"""RF captures and multivariate time series. Its rooms open with the issues that bring them."""
