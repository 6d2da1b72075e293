"""What a recognizer reaches on images whose labels are known."""
