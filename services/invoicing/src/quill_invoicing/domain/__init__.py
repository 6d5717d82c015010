"""What is owed and why: pure decisions, no framework, no clock, no I/O."""
