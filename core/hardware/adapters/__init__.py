"""What this machine is measured with."""
