//! The worker that applies the repository.
fn main() {}
