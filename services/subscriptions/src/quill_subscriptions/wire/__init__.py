"""Messages, stored documents and HTTP bodies on one side, domain values on the other."""
