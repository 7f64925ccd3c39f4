"""The commands of `bud`: one file a noun, thin over the same services that the pages call."""
