"""Groups of families: what is held out together, because who has learnt one family has half learnt its twins.

Families share a group when they ask for the same skill, above all a task and its inverse. The groups held out by
default differ in kind from all that are trained: nothing else puts text in order, reasons from cause to effect,
calculates with columns, or looks into the letters of a word.
"""

from __future__ import annotations

GROUPS = {
    "acronym": "the short and the long form of a name, both ways",
    "causality": "a cause from its effect and an effect from its cause",
    "coherence": "what comes next, first, or does not belong: the order of a text",
    "commands": "a command and what it does, both ways",
    "connective": "the relation between two clauses",
    "conversion": "the same data in another notation",
    "counting": "how many words, sentences or occurrences",
    "definition": "a term and its meaning, both ways",
    "dialogue": "who says what",
    "editing": "one change to a sentence, everything else kept",
    "fields": "records of named fields, as in the head of a mail",
    "formatting": "a list in another form",
    "grading": "whether a proposed answer is right",
    "infilling": "a gap in a text, from options or from the text itself",
    "language": "which language a text is in",
    "list_facts": "what can be said about a list without quoting it",
    "listing": "all things of a kind in a passage",
    "lists": "items of a list, by place or content",
    "mail": "what the writer of a mail quotes, and what they add",
    "markup": "code and links of a passage",
    "naming": "headings, titles and questions that name what stands below them",
    "outline": "the headings of a page",
    "paraphrase": "the same said in other or in simpler words",
    "programming": "functions, their names and documentation",
    "question": "questions about a passage: answered, asked, and unanswerable",
    "quiz": "an exercise made from a sentence",
    "quoting": "the sentence that proves something",
    "realisation": "a sentence from its words, or under constraints",
    "repair": "what was spoilt in a sentence, found or put right",
    "sentiment": "how content the writer was, from the writer's own stars or lists of pros and cons",
    "sorting": "words and items in an order",
    "spelling": "the letters of a word",
    "statement": "what a text says and what it does not",
    "summary": "the sentence that stands for a passage",
    "synthesis": "instructions that a model wrote for spans of the corpus",
    "table_arithmetic": "sums, extremes and counts of a column",
    "tables": "cells and columns of a table",
    "transformation": "rules applied to a text, named or told from their result",
    "word_search": "words of a passage by their form",
}
"""Group → what its families have in common."""

HELD_OUT_GROUPS = ("causality", "coherence", "spelling", "table_arithmetic")
"""Kept for `test_tasks` by default."""
