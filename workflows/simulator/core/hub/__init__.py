"""Models as folders, and the signed links of their files."""
