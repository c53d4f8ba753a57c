"""The test suite. Its tree mirrors `src/meshlib`; `peers` holds the real servers that it talks to."""
