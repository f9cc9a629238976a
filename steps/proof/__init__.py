"""What proves that a release serves: what its workers say of themselves, what they answer, and what they move."""
