"""Hardware: what accelerators and CPUs can do, what an hour of them costs, this machine's probe."""
