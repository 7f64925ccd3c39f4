"""What the control plane and the data plane say to each other: msgspec structs only.

Readers ignore fields they do not know, so either side may be newer than the other.
"""
