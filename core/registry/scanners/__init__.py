"""What looks at a model's files for danger; nothing here runs or unpickles anything."""
