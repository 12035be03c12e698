"""Unlabeled data → instructions: documents, families, gates, splits and the pipeline that joins them."""
