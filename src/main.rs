//! Meeboter server.
fn main() {}
