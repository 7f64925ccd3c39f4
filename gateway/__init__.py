"""The inference process: fast, stateless, fed by the route table. Imports contracts only."""
