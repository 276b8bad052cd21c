"""Network blocks that more than one modality uses. This package imports only torch."""
