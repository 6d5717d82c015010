"""Pure decisions about licenses: no clock, no random, no I/O."""
