"""Teachers and students to test with."""
