"""HTTP entry points: quota checks, and why they are answered as they are."""
