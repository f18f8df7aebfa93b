//! Takes safeguards away, one at a time, and looks whether a test notices.
//!
//! Every safeguard (`src/safeguard.rs`) has a row in `table.rs`: the test that has to fail without
//! it, and passes with it. Each runs in a process of its own: the safeguard is taken away by the
//! environment, which the feature `faults` reads. `docs/testing.md` shows the same table.

mod gaps;
mod order;
#[cfg(feature = "faults")]
mod pairs;
#[cfg(feature = "faults")]
mod run;
mod table;

use statekeep::safeguard;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_safeguard_has_one_row_and_is_told_in_the_documents() {
    let rows: Vec<&str> = table::ROWS.iter().map(|row| row.safeguard).collect();
    let known: Vec<&str> = safeguard::ALL.iter().map(|(_, name, _)| *name).collect();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/testing.md");
    let docs = fs::read_to_string(docs).unwrap();

    assert_eq!(rows, known, "rows are in the order of the safeguards");
    for (row, (_, name, against)) in table::ROWS.iter().zip(safeguard::ALL) {
        let line = format!("| {name} | {against} | {} |", row.notices());
        assert!(docs.contains(&line), "docs/testing.md lacks: {line}");
    }
}

#[test]
fn at_least_forty_failures_of_others_are_made_again() {
    let against = safeguard::ALL.iter().map(|(_, _, against)| *against);
    let against: BTreeSet<&str> = against.collect();

    assert!(against.len() >= 40, "{}: {against:?}", against.len());
}
