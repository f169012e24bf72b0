"""Images. Chapters: vision/."""
