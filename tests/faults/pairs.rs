//! Safeguards against faults of the program and the machine themselves: nothing can miss them as
//! long as the rest is sound. So something else is broken here at the same time.

use crate::oracle::Place;
use crate::oracle::stderr;
use crate::support::Seeded;
use crate::support::TAKEN_AWAY;
use std::fs;
use std::process::Output;

/// Runs the command without this safeguard, and without what the tests themselves run without.
fn run_without(place: &Place, safeguard: &str, args: &[&str]) -> Output {
    let too = std::env::var(TAKEN_AWAY).unwrap_or_default();
    let mut command = place.command_under(&[], args);
    command.env(TAKEN_AWAY, format!("{safeguard},{too}"));
    command.output().unwrap()
}

/// T-39: a library or memory that flips a bit while it compresses.
#[test]
fn a_bit_that_flips_while_encoding_ends_the_backup() {
    let place = Place::new();
    fs::write(place.app("text"), "the same words again ".repeat(3000)).unwrap();

    let output = run_without(&place, "EncoderSound", &["backup", "app"]);

    assert_ne!(output.status.code(), Some(0));
    assert!(
        stderr(&output).contains("faulty memory"),
        "{}",
        stderr(&output)
    );
    assert!(place.backup().status.success());
    assert!(place.run(&["check", "--read-data"]).status.success());
}

/// T-01: a mark that forgets what records lean on.
#[test]
fn a_prune_that_would_lose_a_base_deletes_nothing() {
    let place = Place::new();
    let mut text = Seeded::new(1).text(200_000);
    for version in 0..4 {
        text[1000 * version] ^= 1;
        fs::write(place.app("text"), &text).unwrap();
        assert!(place.backup().status.success());
    }
    let prune = ["prune", "--keep-last", "1", "--confirm"];

    let output = run_without(&place, "BasesKept", &prune);

    let restored = place.restore("latest");
    assert!(fs::read(restored.path().join("text")).unwrap() == text);
    assert_ne!(output.status.code(), Some(0));
    assert!(place.run(&["check", "--read-data"]).status.success());
}
