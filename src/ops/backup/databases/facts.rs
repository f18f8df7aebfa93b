//! What a record says of a database, from what its engine says.

use crate::format::database::DatabaseRecord;
use crate::format::database::Engine;
use crate::source;

/// Takes over what SQLite says of a state.
pub(super) fn of_sqlite(record: &mut DatabaseRecord, facts: &source::sqlite::Facts) {
    record.engine = Engine::Sqlite;
    record.page_bytes = u64::from(facts.page_bytes);
    record.pages = facts.pages;
    record.version = u64::from(facts.version);
    record.user_version = facts.user_version;
    record.application_id = facts.application_id;
    record.wal = facts.wal;
}

/// Takes over what a redb file says of itself.
pub(super) fn of_redb(record: &mut DatabaseRecord, facts: &source::redb::Facts) {
    record.engine = Engine::Redb;
    record.page_bytes = u64::from(facts.page_bytes);
    record.pages = facts.pages;
    record.version = u64::from(facts.version);
}
