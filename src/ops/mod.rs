//! What people ask for, one file or folder for each verb. The only place that starts threads.

pub mod backup;
