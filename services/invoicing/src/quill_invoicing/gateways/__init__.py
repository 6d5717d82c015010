"""Payment rails. Only this folder may import ``stripe``."""
