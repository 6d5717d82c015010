"""What is reached outside: whoever wants to be told over HTTP."""
