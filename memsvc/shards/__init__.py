"""Finders: ways to find the bookmarks that resemble a vector, behind one protocol."""
