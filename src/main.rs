//! The `statekeep` command.

fn main() {}
