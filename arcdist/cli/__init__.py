"""The front door: verbs, their arguments, and errors as people want to read them."""
