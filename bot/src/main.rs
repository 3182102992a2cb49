//! The program inside a slot.
fn main() {}
