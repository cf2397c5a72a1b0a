"""What must not leave: identifiers are met in tables and headers, replaced by keyed pseudonyms, and looked for in whatever is written."""
