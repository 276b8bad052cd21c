"""RF captures: bursts, fingerprints of devices, and the channel between them and the receiver."""
