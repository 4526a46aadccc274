"""Answers as providers really give them, one small file for each, and a server that gives them."""
