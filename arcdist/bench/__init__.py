"""What is faster and leaner than what, measured side by side: cases, timing, machine, report."""
