"""What keeps a call bounded: its deadline, and a breaker for a teacher that keeps failing."""
