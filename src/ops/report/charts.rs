//! Charts as SVG: bars over time, lines of factors, what costs most, a calendar.
//!
//! All are 400 units wide, so that their words can be read on a phone and are not loud on a
//! desk. Colours are classes: the style sheet has them for light and dark.

use crate::ops::report::gather::Bar;
use crate::ops::report::gather::Factors;
use crate::ops::report::gather::Source;
use crate::ops::report::kept::Calendar;
use crate::ops::report::kept::HOUR_DAYS;
use crate::ops::report::kept::WEEKS;
use crate::ops::report::markup::Markup;
use crate::ops::report::markup::elided;
use crate::ops::words;
use jiff::Span;
use jiff::civil::Date;

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 210.0;
/// Room beside the plot for words.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 6.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 26.0;
const PLOT_WIDTH: f64 = WIDTH - LEFT - RIGHT;
const PLOT_HEIGHT: f64 = HEIGHT - TOP - BOTTOM;

/// One that is so many times as high as the next is cut off, or all others are a flat line.
const CUT_FACTOR: u64 = 4;
const NAME_CHARS_MAX: usize = 44;

pub(super) const SERIES_CLASSES: [&str; 6] = ["s0", "s1", "s2", "s3", "s4", "s5"];

/// Draws bars from the left to the right.
pub(super) fn bars(markup: &mut Markup, title: &str, bars: &[Bar], colors: &[String]) {
    let highest = bars.iter().map(Bar::sum).max().unwrap_or(0);
    let top = top_of(bars);
    let (top, step) = ticks(top);
    let of_all = words::size(bars.iter().map(Bar::sum).sum());
    let words_of = format!(
        "{} bars from {} to {}, the highest {}, together {of_all}",
        bars.len(),
        bars.first().map_or("", |bar| &bar.label),
        bars.last().map_or("", |bar| &bar.label),
        words::size(highest),
    );
    begin(markup, HEIGHT, title, &words_of);
    grid(markup, top, step);
    let slot = PLOT_WIDTH / bars.len().max(1) as f64;
    let width = (slot * 0.78).min(36.0);
    for (number, bar) in bars.iter().enumerate() {
        let x = LEFT + slot * number as f64 + (slot - width) / 2.0;
        let mut below = 0.0;
        for (color, bytes) in &bar.parts {
            let height = *bytes as f64 / top.max(bar.sum()) as f64 * PLOT_HEIGHT;
            // What is not nothing can be seen.
            let height = if *bytes > 0 { height.max(1.0) } else { 0.0 };
            below += height;
            let name = colors.get(*color).map_or("others", String::as_str);
            let text = format!("{}: {} of {name}", bar.label, words::size(*bytes));
            let class = SERIES_CLASSES[(*color).min(SERIES_CLASSES.len() - 1)];
            let (x, y) = (number_of(x), number_of(TOP + PLOT_HEIGHT - below));
            let (width, height) = (number_of(width), number_of(height));
            let at = [
                ("class", class),
                ("x", &x),
                ("y", &y),
                ("width", &width),
                ("height", &height),
            ];
            markup.titled("rect", &at, &text);
        }
        if bar.sum() > top {
            cut_mark(markup, x, width, &words::size(bar.sum()));
        }
    }
    let labels = [bars.first(), bars.last()];
    let labels = labels.map(|bar| bar.map_or("", |bar| &*bar.label));
    axis_labels(markup, labels, bars.len());
    markup.close("svg");
}

/// Returns how high the axis must reach: for all bars, or for all but one that is far above.
fn top_of(bars: &[Bar]) -> u64 {
    let mut sums: Vec<u64> = bars.iter().map(Bar::sum).collect();
    sums.sort_unstable_by_key(|sum| std::cmp::Reverse(*sum));
    match sums[..] {
        [] => 1,
        // Three far above the others are as bad as one: first backups of several applications.
        [..] => {
            let cut = sums
                .windows(2)
                .take(3)
                .position(|pair| pair[1] > 0 && pair[1].saturating_mul(CUT_FACTOR) < pair[0]);
            let at = cut.map_or(0, |at| at + 1);
            sums[at].max(1)
        }
    }
}

/// A bar that goes on above the plot.
fn cut_mark(markup: &mut Markup, x: f64, width: f64, text: &str) {
    let d = format!(
        "M{} {}l{} 5v4l-{} -5z",
        number_of(x - 2.0),
        number_of(TOP + 10.0),
        number_of(width + 4.0),
        number_of(width + 4.0)
    );
    markup.shape("path", &[("class", "gap"), ("d", &d)]);
    let center = x + width / 2.0;
    let (anchor, x) = if center < WIDTH / 3.0 {
        ("start", x)
    } else if center > WIDTH * 2.0 / 3.0 {
        ("end", x + width)
    } else {
        ("middle", center)
    };
    let (x, y) = (number_of(x), number_of(TOP - 6.0));
    let at = [("x", &*x), ("y", &y), ("text-anchor", anchor)];
    markup.element("text", &at, &format!("{text} ↑"));
}

fn begin(markup: &mut Markup, height: f64, title: &str, description: &str) {
    let view = format!("0 0 {WIDTH} {}", number_of(height));
    let label = format!("{title}: {description}");
    let at = [("viewBox", &*view), ("role", "img"), ("aria-label", &label)];
    markup.open("svg", &at);
    markup.element("title", &[], title);
    markup.element("desc", &[], description);
}

/// Draws lines of equal height with their sizes.
fn grid(markup: &mut Markup, top: u64, step: u64) {
    let mut value = 0;
    while value <= top {
        let y = TOP + PLOT_HEIGHT * (1.0 - value as f64 / top as f64);
        grid_line(markup, y, &words::size(value));
        value = value.saturating_add(step);
    }
}

fn grid_line(markup: &mut Markup, y: f64, text: &str) {
    let d = format!("M{LEFT} {}H{}", number_of(y), WIDTH - RIGHT);
    markup.shape("path", &[("class", "grid"), ("d", &d)]);
    let (x, y) = (number_of(LEFT - 6.0), number_of(y + 4.0));
    let at = [("x", &*x), ("y", &y), ("text-anchor", "end")];
    markup.element("text", &at, text);
}

fn axis_labels(markup: &mut Markup, labels: [&str; 2], count: usize) {
    let y = number_of(HEIGHT - 7.0);
    let (first, last) = (number_of(LEFT), number_of(WIDTH - RIGHT));
    let at = [("x", &*first), ("y", &y), ("text-anchor", "start")];
    markup.element("text", &at, labels[0]);
    if count > 1 {
        let at = [("x", &*last), ("y", &y), ("text-anchor", "end")];
        markup.element("text", &at, labels[1]);
    }
}

/// Returns the end of an axis that holds so many bytes, and the step of its lines: few and round.
fn ticks(most: u64) -> (u64, u64) {
    let mut unit: u64 = 1;
    while most / unit >= 1024 && unit < 1 << 60 {
        unit <<= 10;
    }
    let rounds = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1024];
    let fits = |round: &&u64| unit.saturating_mul(**round).saturating_mul(4) >= most;
    let round = rounds.iter().find(fits).copied().unwrap_or(1024);
    let step = unit.saturating_mul(round);
    // Below four lines of the unit there are finer ones of the next smaller.
    let step = match (round, most / unit) {
        (1, 0..2) if unit > 1 => unit / 2,
        _ => step,
    };
    let top = most.div_ceil(step).max(1).saturating_mul(step);
    (top, step)
}

type Value = fn(&Factors) -> f64;

/// Draws factors as lines, each ten times as high as the one below.
pub(super) fn factors(markup: &mut Markup, title: &str, points: &[Factors]) {
    let highest = points
        .iter()
        .map(|one| one.all.max(one.dedup))
        .fold(1.0, f64::max);
    let decades = highest.log10().ceil().clamp(1.0, 12.0);
    let last = points.last();
    let description = last.map_or(String::new(), |last| {
        format!(
            "in the end {} times by deduplication, {} times by compression and deltas, {} in all",
            times(last.dedup),
            times(last.encoding),
            times(last.all)
        )
    });
    begin(markup, HEIGHT, title, &description);
    let lines = decades as i32;
    let every = (lines / 5 + 1).max(1);
    for decade in (0..=lines).step_by(every as usize) {
        let y = TOP + PLOT_HEIGHT * (1.0 - f64::from(decade) / decades);
        grid_line(markup, y, &format!("{}×", times(10f64.powi(decade))));
    }
    let step = PLOT_WIDTH / (points.len().max(2) - 1) as f64;
    let values: [(&str, Value); 3] = [
        // The one that the others may lie on first.
        ("line s2", |one| one.all),
        ("line s0", |one| one.dedup),
        ("line s1", |one| one.encoding),
    ];
    for (class, value) in values {
        let mut d = String::new();
        for (number, one) in points.iter().enumerate() {
            let x = LEFT + step * number as f64;
            let y = TOP + PLOT_HEIGHT * (1.0 - value(one).max(1.0).log10() / decades);
            let letter = if number == 0 { 'M' } else { 'L' };
            d.push_str(&format!("{letter}{} {}", number_of(x), number_of(y)));
        }
        markup.shape("path", &[("class", class), ("d", &d)]);
    }
    let labels = [points.first(), last].map(|one| one.map_or("", |one| &*one.label));
    axis_labels(markup, labels, points.len());
    markup.close("svg");
}

/// Returns a factor with as many digits as say something.
pub(super) fn times(factor: f64) -> String {
    match factor {
        100.0.. => format!("{factor:.0}"),
        _ => format!("{factor:.1}").trim_end_matches(".0").to_string(),
    }
}

/// Draws bars from the top to the bottom, each below its name.
pub(super) fn sources(markup: &mut Markup, title: &str, sources: &[Source]) {
    const ROW: f64 = 34.0;
    let most = sources
        .iter()
        .map(|source| source.bytes)
        .max()
        .unwrap_or(1)
        .max(1);
    let first = sources.first().map_or(String::new(), |first| {
        format!("most is {} with {}", first.name, words::size(first.bytes))
    });
    begin(markup, ROW * sources.len() as f64, title, &first);
    for (number, source) in sources.iter().enumerate() {
        let y = ROW * number as f64;
        let text_y = number_of(y + 14.0);
        let name = elided(&source.name, NAME_CHARS_MAX);
        markup.element(
            "text",
            &[("class", "name"), ("x", "0"), ("y", &text_y)],
            &name,
        );
        let right = number_of(WIDTH);
        let at = [("x", &*right), ("y", &text_y), ("text-anchor", "end")];
        markup.element("text", &at, &words::size(source.bytes));
        let y = number_of(y + 19.0);
        let width = (source.bytes as f64 / most as f64 * WIDTH).max(1.0);
        let width = number_of(width);
        let track = [
            ("class", "track"),
            ("x", "0"),
            ("y", &*y),
            ("width", &right),
            ("height", "8"),
        ];
        markup.shape("rect", &track);
        let bar = [
            ("class", "s0"),
            ("x", "0"),
            ("y", &*y),
            ("width", &width),
            ("height", "8"),
        ];
        let text = format!(
            "{} ({}): {}",
            source.name,
            source.what,
            words::size(source.bytes)
        );
        markup.titled("rect", &bar, &text);
    }
    markup.close("svg");
}

/// Draws the days of a year by weeks.
pub(super) fn calendar(markup: &mut Markup, title: &str, calendar: &Calendar) {
    let (Some(first), Some(last)) = (calendar.first, calendar.last) else {
        return;
    };
    const LEFT: f64 = 24.0;
    const HEAD: f64 = 16.0;
    let pitch = (WIDTH - LEFT) / WEEKS as f64;
    let snapshots: u64 = calendar.days.values().map(|(count, _)| count).sum();
    let description = format!(
        "{} on {} from {first} to {last}",
        words::count(snapshots, "snapshot", "snapshots"),
        words::count(calendar.days.len() as u64, "day", "days"),
    );
    begin(markup, HEAD + 7.0 * pitch, title, &description);
    for (row, name) in [(0, "Mon"), (2, "Wed"), (4, "Fri"), (6, "Sun")] {
        let y = number_of(HEAD + pitch * f64::from(row) + pitch - 1.0);
        markup.element("text", &[("class", "small"), ("x", "0"), ("y", &y)], name);
    }
    let side = number_of(pitch - 1.2);
    let mut empty = String::new();
    let mut day = first;
    let mut at = 0;
    while day <= last {
        let x = LEFT + pitch * f64::from(at / 7);
        let y = HEAD + pitch * f64::from(at % 7);
        if day.day() == 1 && at / 7 < WEEKS as i32 - 2 {
            let name = day.strftime("%b").to_string();
            let x = number_of(x);
            markup.element("text", &[("class", "small"), ("x", &x), ("y", "10")], &name);
        }
        match calendar.days.get(&day) {
            None => empty.push_str(&format!(
                "M{} {}h{side}v{side}h-{side}z",
                number_of(x),
                number_of(y)
            )),
            Some((count, why)) => {
                let count_words = words::count(*count, "snapshot", "snapshots");
                let text = format!("{day}: {count_words} ({why})");
                cell(markup, (x, y), (&side, &side), *count, &text);
            }
        }
        let Ok(next) = day.tomorrow() else { break };
        day = next;
        at += 1;
    }
    markup.shape("path", &[("class", "none"), ("d", &empty)]);
    markup.close("svg");
}

/// Draws the hours of the last days.
pub(super) fn hours(markup: &mut Markup, title: &str, calendar: &Calendar) {
    let Some(last) = calendar.last else { return };
    const LEFT: f64 = 72.0;
    const HEAD: f64 = 16.0;
    const ROW: f64 = 15.0;
    let pitch = (WIDTH - LEFT) / 24.0;
    let hours = calendar.hours.len() as u64;
    let description = format!("{} with snapshots", words::count(hours, "hour", "hours"));
    begin(markup, HEAD + ROW * HOUR_DAYS as f64, title, &description);
    for hour in [0, 6, 12, 18] {
        let x = number_of(LEFT + pitch * f64::from(hour));
        let text = format!("{hour:02}:00");
        markup.element("text", &[("class", "small"), ("x", &x), ("y", "10")], &text);
    }
    let (width, height) = (number_of(pitch - 1.5), number_of(ROW - 2.0));
    let mut empty = String::new();
    for row in 0..HOUR_DAYS {
        let back = Span::new().days((HOUR_DAYS - 1 - row) as i64);
        let day: Date = last.checked_sub(back).unwrap_or(last);
        let top = HEAD + ROW * row as f64;
        let y = number_of(top + ROW - 5.0);
        let name = day.strftime("%a %d %b").to_string();
        markup.element("text", &[("class", "small"), ("x", "0"), ("y", &y)], &name);
        for hour in 0..24 {
            let x = LEFT + pitch * f64::from(hour);
            match calendar.hours.get(&(day, hour)) {
                None => empty.push_str(&format!(
                    "M{} {}h{width}v{height}h-{width}z",
                    number_of(x),
                    number_of(top)
                )),
                Some(count) => {
                    let count_words = words::count(*count, "snapshot", "snapshots");
                    let text = format!("{day} {hour:02}:00: {count_words}");
                    cell(markup, (x, top), (&width, &height), *count, &text);
                }
            }
        }
    }
    markup.shape("path", &[("class", "none"), ("d", &empty)]);
    markup.close("svg");
}

fn cell(markup: &mut Markup, at: (f64, f64), side: (&str, &str), count: u64, text: &str) {
    let (x, y) = (number_of(at.0), number_of(at.1));
    let at = [
        ("class", heat(count)),
        ("x", &*x),
        ("y", &y),
        ("width", side.0),
        ("height", side.1),
    ];
    markup.titled("rect", &at, text);
}

/// Returns the class of so many snapshots.
fn heat(count: u64) -> &'static str {
    match count {
        0..2 => "h1",
        2..6 => "h2",
        6..24 => "h3",
        24.. => "h4",
    }
}

/// Returns a number with no more digits than a screen shows.
fn number_of(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_bar_far_above_the_others_is_cut_off() {
        let bar = |bytes| Bar {
            label: String::new(),
            parts: vec![(0, bytes)],
        };
        let top = |sums: &[u64]| top_of(&sums.iter().map(|sum| bar(*sum)).collect::<Vec<_>>());

        assert_eq!(top(&[]), 1);
        assert_eq!(top(&[7]), 7);
        assert_eq!(top(&[1000, 3, 4]), 4);
        assert_eq!(top(&[1000, 900, 4, 3]), 4);
        assert_eq!(top(&[10, 3, 4]), 10);
        assert_eq!(top(&[10, 0, 0]), 10);
    }

    proptest! {
        #[test]
        fn an_axis_holds_what_it_must_with_few_lines(most: u64) {
            let (top, step) = ticks(most);
            prop_assert!(top >= most || top > u64::MAX / 2);
            prop_assert!(step > 0);
            prop_assert!(top / step <= 5, "{} {}", top, step);
        }
    }
}
