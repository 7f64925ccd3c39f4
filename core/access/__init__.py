"""Who may call the gateway beyond having a key: blocking rules."""
