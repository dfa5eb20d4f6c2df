"""Pure tensor functions: no parameters, no process group."""
