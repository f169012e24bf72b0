"""Graphs and sets. Chapters: graphs/."""
