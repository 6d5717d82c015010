"""What Quill services say to each other: topics, messages, schemas."""
