//! The lake: Delta tables written by what the pipeline hands over.
