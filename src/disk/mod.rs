//! Every durable file write.
