"""What people correct: images held for review, the store of corrections, their addresses."""
