"""The exception family: every message says what was found, what was expected and what to do."""


class NeuroError(Exception):
    """Base of all errors that this project raises on purpose."""


class InputError(NeuroError, ValueError):
    """The user's input is wrong: a workflow field, a file, an argument (exit code 2)."""


class DataError(InputError):
    """A recording or table can't be used as it is: truncated, wrong rate, missing channels."""


class ContractError(InputError):
    """New data does not match what an encoder was fitted on; both sides are in the message."""


class StageError(NeuroError, RuntimeError):
    """A stage of a workflow failed while it ran (exit code 1)."""


class StoreError(NeuroError, OSError):
    """The cache can't be read or written: read-only, full, or damaged."""
