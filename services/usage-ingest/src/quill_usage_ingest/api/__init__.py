"""HTTP: PostHog's daily report in, usage with its origins out."""
