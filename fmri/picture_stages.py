"""The stages that make and gather pictures, declared to the runner; no logic."""
