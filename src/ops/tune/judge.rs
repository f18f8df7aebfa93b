//! Judges what was measured: what differs by more than chance, and whether that is worth a change.
//!
//! Pure. Chance is what repeated rounds differ by, and never less than what is known of it: another
//! key of the repository alone moves stored bytes by one or two percent.

use crate::ops::tune::way::Change;
use crate::ops::tune::way::Way;

/// Backups after the first that count beside it: a month of days.
const STEPS_COUNTED: f64 = 30.0;
/// Stored bytes differ by so much for no reason.
const BYTES_NOISE: f64 = 0.02;
/// Times differ by so much for no reason: in one round, and in several.
const TIME_NOISE: f64 = 0.25;
const TIME_NOISE_REPEATED: f64 = 0.10;
/// Less is not worth a change.
const WORTH_BYTES: f64 = 0.05;
const WORTH_TIME: f64 = 0.25;
/// What fewer bytes may cost: so many times the time of a backup, or so much more,
const SLOWER_MAX: f64 = 2.0;
const SLOWER_NS: f64 = 250e6;
/// and so many times the time of a restore.
const RESTORE_MAX: f64 = 1.25;

/// What one round found out about a way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// What the first backup stored.
    pub first_bytes: u64,
    /// What each further one stored.
    pub step_bytes: Vec<u64>,
    /// How long the first backup took.
    pub first_ns: u64,
    /// How long each further one took.
    pub step_ns: Vec<u64>,
    /// How long restores of the newest took.
    pub restore_ns: Vec<u64>,
    /// The most memory a backup had.
    pub peak_bytes: Option<u64>,
}

/// What was found out about a way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// What makes it differ from the way that counts now.
    pub change: Change,
    /// The way.
    pub way: Way,
    /// The rounds.
    pub rounds: Vec<Round>,
}

/// A way in a few figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// What the first backup stored, the median of rounds.
    pub first_bytes: u64,
    /// What a further one stored: the mean of steps, the median of rounds.
    pub step_bytes: Option<u64>,
    /// How long the first backup took, the median.
    pub first_ns: u64,
    /// How long a further one took, the median.
    pub step_ns: Option<u64>,
    /// How long a restore of the newest took, the median.
    pub restore_ns: Option<u64>,
    /// The most memory a backup had.
    pub peak_bytes: Option<u64>,
}

/// What a change brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gain {
    /// Fewer stored bytes.
    Bytes,
    /// Faster backups.
    Time,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Use this way.
    Change {
        /// Its place among those measured.
        index: usize,
        /// What it brings.
        gain: Gain,
        /// How much of what there is now is saved, from 0 to 1.
        saved: f64,
    },
    /// Leave everything as it is: nothing differs by more than chance.
    Noise,
    /// Leave everything as it is: what differs is too little, or costs too much.
    Stay,
}

impl Measured {
    /// Returns it in a few figures.
    pub fn summary(&self) -> Summary {
        let rounds = &self.rounds;
        let all = |of: fn(&Round) -> &Vec<u64>| rounds.iter().flat_map(of).copied();
        Summary {
            first_bytes: median(rounds.iter().map(|round| round.first_bytes)).unwrap_or(0),
            step_bytes: median(rounds.iter().filter_map(|round| mean(&round.step_bytes))),
            first_ns: median(rounds.iter().map(|round| round.first_ns)).unwrap_or(0),
            step_ns: median(all(|round| &round.step_ns)),
            restore_ns: median(all(|round| &round.restore_ns)),
            peak_bytes: rounds.iter().filter_map(|round| round.peak_bytes).max(),
        }
    }

    /// Returns what is stored in a month of days.
    fn bytes(&self) -> Figure {
        Figure::of(self.rounds.iter().map(|round| {
            let step = mean(&round.step_bytes).unwrap_or(0);
            round.first_bytes as f64 + STEPS_COUNTED * step as f64
        }))
    }

    /// Returns how long a backup takes: one of many, if there are any.
    fn time(&self) -> Figure {
        Figure::of(self.rounds.iter().map(|round| {
            let step = median(round.step_ns.iter().copied());
            step.unwrap_or(round.first_ns) as f64
        }))
    }
}

/// Something measured several times.
#[derive(Debug, Clone, Copy)]
struct Figure {
    median: f64,
    /// Half of what the rounds differ by, as a part of the median.
    noise: f64,
    count: usize,
}

impl Figure {
    fn of(values: impl Iterator<Item = f64>) -> Figure {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (Some(first), Some(last)) = (values.first(), values.last()) else {
            return Figure {
                median: 0.0,
                noise: 0.0,
                count: 0,
            };
        };
        let count = values.len();
        let median = (values[(count - 1) / 2] + values[count / 2]) / 2.0;
        let noise = (last - first) / 2.0 / median.max(1.0);
        Figure {
            median,
            noise,
            count,
        }
    }
}

/// Returns what to do, given all ways; the first is the one that counts now.
pub fn verdict(measured: &[Measured]) -> Verdict {
    let Some((now, others)) = measured.split_first() else {
        return Verdict::Noise;
    };
    let (mut best, mut is_noise) = (None, true);
    for (index, other) in others.iter().enumerate() {
        let bytes = Saved::of(now.bytes(), other.bytes(), &|_| BYTES_NOISE);
        let time = Saved::of(now.time(), other.time(), &|count| match count {
            0..=2 => TIME_NOISE,
            _ => TIME_NOISE_REPEATED,
        });
        is_noise &= bytes.is_noise() && time.is_noise();
        let gain = if bytes.pays(WORTH_BYTES) && is_affordable(now, other) {
            Some((Gain::Bytes, bytes.saved))
        } else if time.pays(WORTH_TIME) && bytes.saved >= -BYTES_NOISE {
            Some((Gain::Time, time.saved))
        } else {
            None
        };
        let Some((gain, saved)) = gain else { continue };
        // Bytes are what stays; time comes second.
        let rank = (gain == Gain::Bytes, saved);
        if best.is_none_or(|(_, than)| rank > than) {
            best = Some((index + 1, rank));
        }
    }
    match best {
        Some((index, (is_bytes, saved))) => Verdict::Change {
            index,
            gain: if is_bytes { Gain::Bytes } else { Gain::Time },
            saved,
        },
        None if is_noise => Verdict::Noise,
        None => Verdict::Stay,
    }
}

/// What one figure is smaller by than another, as a part of that.
struct Saved {
    saved: f64,
    noise: f64,
}

impl Saved {
    fn of(now: Figure, other: Figure, floor: &dyn Fn(usize) -> f64) -> Saved {
        let floor = floor(now.count.min(other.count));
        Saved {
            saved: 1.0 - other.median / now.median.max(1.0),
            noise: (now.noise + other.noise).max(floor),
        }
    }

    fn is_noise(&self) -> bool {
        self.saved.abs() <= self.noise
    }

    fn pays(&self, worth: f64) -> bool {
        self.saved >= worth && self.saved > self.noise
    }
}

/// Returns whether backups and restores take not much longer.
fn is_affordable(now: &Measured, other: &Measured) -> bool {
    let (before, after) = (now.time().median, other.time().median);
    let restores = (now.summary().restore_ns, other.summary().restore_ns);
    let is_quick = after <= before * SLOWER_MAX || after <= before + SLOWER_NS;
    let restores_well = match restores {
        (Some(before), Some(after)) => {
            let (before, after) = (before as f64, after as f64);
            after <= before * RESTORE_MAX || after <= before + SLOWER_NS
        }
        _ => true,
    };
    is_quick && restores_well
}

fn mean(values: &[u64]) -> Option<u64> {
    let count = values.len() as u64;
    (count > 0).then(|| values.iter().sum::<u64>() / count)
}

fn median(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A way with rounds of (first bytes, bytes of a step, milliseconds of a step, of a restore).
    fn way(rounds: &[(u64, u64, u64, u64)]) -> Measured {
        let rounds = rounds.iter().map(|&(first, step, ms, restore_ms)| Round {
            first_bytes: first,
            step_bytes: vec![step; 3],
            first_ns: 10 * ms * MS,
            step_ns: vec![ms * MS; 3],
            restore_ns: vec![restore_ms * MS],
            peak_bytes: None,
        });
        Measured {
            change: Change::Nothing,
            way: Way::default(),
            rounds: rounds.collect(),
        }
    }

    fn gain(measured: &[Measured]) -> Option<(usize, Gain)> {
        match verdict(measured) {
            Verdict::Change { index, gain, .. } => Some((index, gain)),
            Verdict::Noise | Verdict::Stay => None,
        }
    }

    #[test]
    fn the_way_that_stores_least_wins_if_it_costs_little() {
        let now = way(&[(1000, 100, 1000, 500)]);
        let small = way(&[(1000, 80, 1500, 500)]);
        let smaller = way(&[(900, 70, 1900, 500)]);
        let slow = way(&[(500, 20, 2500, 500)]);
        let slow_to_restore = way(&[(500, 20, 1000, 800)]);
        let fast = way(&[(1000, 100, 300, 500)]);

        let all = [now, small, smaller, slow, slow_to_restore, fast];
        assert_eq!(gain(&all), Some((2, Gain::Bytes)));
        let only_fast = [all[0].clone(), all[3].clone(), all[5].clone()];
        assert_eq!(gain(&only_fast), Some((2, Gain::Time)));
        assert_eq!(verdict(&all[..1]), Verdict::Noise);
    }

    #[test]
    fn a_step_of_milliseconds_may_take_more_of_them() {
        let now = way(&[(1000, 100, 20, 30)]);
        let less = way(&[(1000, 60, 90, 100)]);
        assert_eq!(gain(&[now, less]), Some((1, Gain::Bytes)));
    }

    #[test]
    fn what_rounds_differ_by_is_no_reason_to_change_anything() {
        let now = way(&[
            (1000, 100, 1000, 500),
            (1000, 120, 900, 500),
            (1000, 80, 1100, 500),
        ]);
        let other = way(&[
            (1000, 90, 1000, 500),
            (1000, 110, 1050, 500),
            (1000, 75, 900, 500),
        ]);
        assert_eq!(verdict(&[now, other]), Verdict::Noise);

        // The same medians, measured without any spread.
        let now = way(&[(1000, 100, 1000, 500); 3]);
        let other = way(&[(1000, 90, 1000, 500); 3]);
        assert_eq!(gain(&[now, other]), Some((1, Gain::Bytes)));
    }

    #[test]
    fn a_difference_that_is_real_and_not_worth_it_is_called_that() {
        let now = way(&[(1000, 100, 1000, 500)]);
        let little = way(&[(1000, 97, 1000, 500)]);
        let dear = way(&[(1000, 50, 9000, 500)]);
        let fast_and_large = way(&[(1000, 150, 300, 500)]);
        assert_eq!(verdict(&[now.clone(), little]), Verdict::Stay);
        assert_eq!(verdict(&[now.clone(), dear]), Verdict::Stay);
        assert_eq!(verdict(&[now, fast_and_large]), Verdict::Stay);
    }

    #[test]
    fn figures_are_medians_of_rounds_and_means_of_steps() {
        let mut measured = way(&[(10, 1, 5, 7), (30, 3, 6, 8), (20, 2, 9, 9)]);
        measured.rounds[1].step_bytes = vec![1, 2, 6];
        measured.rounds[2].peak_bytes = Some(77);

        let summary = measured.summary();

        assert_eq!((summary.first_bytes, summary.step_bytes), (20, Some(2)));
        assert_eq!(
            (summary.step_ns, summary.restore_ns),
            (Some(6 * MS), Some(8 * MS))
        );
        assert_eq!(summary.peak_bytes, Some(77));
    }
}
