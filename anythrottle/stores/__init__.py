"""Limits that are shared by many processes. Each store has a module of its own."""
