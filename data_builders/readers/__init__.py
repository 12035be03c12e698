"""Readers: one module per format, each a generator from a file to `Document`s. `documents.read` chooses among them.

A reader yields a `Document` per unit of meaning, a `Skipped` per bad record, and raises `Unreadable` when the rest of
the file yields nothing. None holds more of a file in memory than one document of `MAX_DOCUMENT_BYTES`.
"""
