"""What people correct: pictures held for review, the store of corrections, their addresses."""
