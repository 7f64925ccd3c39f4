"""What every domain stands on: settings, database, errors, crypto, clock, ids, audit, events."""
