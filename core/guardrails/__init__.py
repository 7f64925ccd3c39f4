"""What a project lets through of prompts and answers: its guardrails, as they are set."""
