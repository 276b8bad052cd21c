"""A whole plugin: stages and an encoder that the runner finds through entry points only."""
