//! stub
/// How long a pack and its table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackBytes {
    /// a
    pub stored_bytes: u64,
    /// b
    pub table_bytes: u64,
}
