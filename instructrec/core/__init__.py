"""What builders, training and evaluation share: schema, errors, segmentation, overlap. Light: never imports torch."""
