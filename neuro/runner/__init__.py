"""The workflow runner: schema, plan, store, run and engine."""
