//! The real binary under faults: what is saved stays saved, and the next run succeeds.
//!
//! One world and one list of operations for all of them: `faults` fails or kills at single system
//! calls, `limits` takes space, names, memory and handles away, `power` cuts a real file system off.
//! CI runs a short slice; `docs/testing.md` says how to run the rest.

mod faults;
mod limits;
mod operations;
mod power;
mod world;

pub(crate) use faults::can_trace;

use operations::Operation;

/// Returns how many cases of each operation are run: few, unless `STATEKEEP_CUTS` is `all` or a number.
fn how_many(few: usize, all: usize) -> usize {
    let wanted = match std::env::var("STATEKEEP_CUTS").as_deref() {
        Ok("all") => all,
        Ok(number) => number.parse().unwrap(),
        Err(_) => few,
    };
    wanted.min(all)
}

/// Returns which of so many cases are run: at even distances, from a different one for another salt.
fn sample(count: usize, few: usize, salt: u64) -> Vec<usize> {
    let wanted = how_many(few, count);
    let start = usize::try_from(salt % count.max(1) as u64).unwrap();
    let mut chosen: Vec<usize> = (0..wanted)
        .map(|index| (start + index * (count / wanted)) % count)
        .collect();
    chosen.sort_unstable();
    chosen
}

/// Returns operations with their numbers: those that `STATEKEEP_OPERATIONS` names, all in a long run, or
/// every fifth.
fn wanted(offset: usize) -> Vec<(u64, &'static Operation)> {
    let named = std::env::var("STATEKEEP_OPERATIONS").ok();
    let is_long = std::env::var("STATEKEEP_CUTS").is_ok();
    let is_wanted = |number: usize, name: &str| match &named {
        Some(named) => named.split(',').any(|wanted| wanted == name),
        None => is_long || number % 5 == offset,
    };
    let all = operations::ALL.iter().enumerate();
    let chosen = all.filter(|(number, operation)| is_wanted(*number, operation.name));
    chosen
        .map(|(number, operation)| (number as u64, operation))
        .collect()
}
