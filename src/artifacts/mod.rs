//! Segments and recordings in an S3 store.
