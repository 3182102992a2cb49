//! Meeboter.
