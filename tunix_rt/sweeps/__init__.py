"""What a sweep leaves behind: every member's end, and a ranked table."""
