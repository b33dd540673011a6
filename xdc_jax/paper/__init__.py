"""The paper's tables: its numbers, ours beside them, and how to get ours."""
