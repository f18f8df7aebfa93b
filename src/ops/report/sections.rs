//! The sections of the page, from the verdict down to every drill, with a table behind each chart.

use crate::context::Timestamp;
use crate::ops::report::Report;
use crate::ops::report::charts;
use crate::ops::report::gather::Bar;
use crate::ops::report::gather::Source;
use crate::ops::report::markup::Markup;
use crate::ops::report::markup::elided;
use crate::ops::report::parts::NAME_CHARS_MAX;
use crate::ops::report::parts::begin;
use crate::ops::report::parts::begin_card;
use crate::ops::report::parts::details;
use crate::ops::report::parts::empty;
use crate::ops::report::parts::heat_legend;
use crate::ops::report::parts::legend;
use crate::ops::report::parts::table;
use crate::ops::status;
use crate::ops::status::SeriesStatus;
use crate::ops::words;

const SECOND_NS: i64 = 1_000_000_000;
/// Rows of the table of applications.
const APPLICATIONS_MAX: usize = 50;

/// The verdict, and the figures that matter.
pub(super) fn top(markup: &mut Markup, report: &Report) {
    markup.open("header", &[]);
    markup.element("h1", &[], &format!("Backups in {}", report.name));
    let made = words::local_with_zone(report.now, &report.zone);
    markup.element("p", &[("class", "quiet")], &made);
    markup.close("header");
    let class = match report.verdict.code() {
        "safe" => "verdict good",
        "warnings" => "verdict fair",
        _ => "verdict bad",
    };
    markup.open("section", &[("class", class), ("aria-label", "Verdict")]);
    markup.element("p", &[("class", "headline")], &report.headline);
    let judged = report.status.series.iter().filter(|one| one.is_judged);
    let problems = judged.flat_map(|one| one.problems.iter().map(move |problem| (one, problem)));
    let mut problems: Vec<_> = problems.collect();
    problems.sort_by_key(|(_, problem)| std::cmp::Reverse(problem.gravity()));
    markup.open("ul", &[]);
    if report.status.has_damage() {
        markup.element("li", &[], &report.status.damage_words());
    }
    for (one, problem) in problems.iter().take(APPLICATIONS_MAX) {
        let text = problem.words(one, report.now, &report.zone);
        markup.element("li", &[], &format!("{}: {text}", name_of(one)));
    }
    if let Some(more @ 1..) = problems.len().checked_sub(APPLICATIONS_MAX) {
        markup.element("li", &[], &format!("and {more} more"));
    }
    markup.close("ul");
    markup.close("section");
    tiles(markup, report);
    if report.stats.unreadable > 0 {
        let nodes = words::count(report.stats.unreadable, "node", "nodes");
        let text = format!("{nodes} of snapshots cannot be read, so the figures are too low.");
        markup.element("p", &[("class", "note")], &text);
    }
}

fn tiles(markup: &mut Markup, report: &Report) {
    let totals = &report.stats.totals;
    let growth = &report.stats.growth;
    let a_day = growth.day_bytes.map_or("–".to_string(), words::size);
    let forecast = growth.forecast(30).map(words::size);
    let forecast = forecast.map_or("three days of backups tell".to_string(), |bytes| {
        format!("{bytes} in 30 days, before pruning")
    });
    let since = report.first_day().map_or(String::new(), |days| {
        format!("over {}", words::count(days + 1, "day", "days"))
    });
    let tiles = [
        ("Snapshots", totals.snapshots.to_string(), since),
        (
            "They hold",
            words::size(totals.total_bytes),
            format!("{} of it different", words::size(totals.unique_bytes)),
        ),
        (
            "Stored",
            words::size(totals.pack_bytes),
            format!("{} times less", charts::times(totals.factor())),
        ),
        ("Growth a day", a_day, forecast),
    ];
    markup.open("dl", &[("class", "tiles")]);
    for (name, value, beside) in &tiles {
        markup.open("div", &[]);
        markup.element("dt", &[], name);
        markup.element("dd", &[("class", "value")], value);
        markup.element("dd", &[("class", "quiet")], beside);
        markup.close("div");
    }
    markup.close("dl");
}

/// A row for each application.
pub(super) fn applications(markup: &mut Markup, report: &Report) {
    begin(markup, "Applications");
    if report.status.series.is_empty() {
        empty(markup, "There is no backup yet.");
    } else {
        let heads = [
            "Application",
            "State",
            "Last backup",
            "Next due",
            "Proven",
            ">Size",
            ">Stored",
            ">A day",
        ];
        let shown = report.status.series.iter().take(APPLICATIONS_MAX);
        let rows: Vec<Vec<String>> = shown.map(|one| application(report, one)).collect();
        table(markup, "Applications", &heads, &rows);
        let more = report.status.series.len().saturating_sub(APPLICATIONS_MAX);
        if more > 0 {
            empty(markup, &format!("And {more} more: statekeep status -v"));
        }
    }
    markup.close("section");
}

fn application(report: &Report, one: &SeriesStatus) -> Vec<String> {
    let ago = |at: Timestamp| words::ago(report.now.since_ns(at).max(0) / SECOND_NS);
    let proven = match &one.proof {
        None => "never".to_string(),
        Some((_, proof)) if proof.passed() => ago(proof.at),
        Some((_, proof)) => format!("FAILED {}", ago(proof.at)),
    };
    let host = words::safe(&one.name.host);
    vec![
        format!("{} on {}", name_of(one), elided(&host, NAME_CHARS_MAX)),
        one.state_word().to_string(),
        one.last.map_or("never".to_string(), |made| ago(made.at)),
        one.due.map_or("–".to_string(), |due| due.short(report.now)),
        proven,
        words::size(one.size_bytes),
        words::size(one.stored_bytes),
        one.growth.day_bytes.map_or("–".to_string(), words::size),
    ]
}

fn name_of(one: &SeriesStatus) -> String {
    elided(&status::label(&one.name), NAME_CHARS_MAX)
}

/// What was stored, by what, and how.
pub(super) fn growth(markup: &mut Markup, report: &Report) {
    begin(markup, "What was stored");
    markup.open("div", &[("class", "grid")]);
    over_time(markup, report);
    factors(markup, report);
    codecs(markup, report);
    let title = "What costs most: files and databases";
    let about = "Stored bytes that nothing else needs, over all versions.";
    sources(markup, title, about, &report.files);
    let title = "What costs most: tables";
    let about = "What the pages of a table take, in the newest snapshots.";
    sources(markup, title, about, &report.tables);
    markup.close("div");
    markup.close("section");
}

fn over_time(markup: &mut Markup, report: &Report) {
    let title = "Stored by each backup";
    begin_card(markup, title, "The last backups whose snapshots are there.");
    if report.backups.is_empty() {
        empty(markup, "There is no backup yet.");
    } else {
        charts::bars(markup, title, &report.backups, &report.colors);
        legend(markup, &report.colors);
        bar_table(markup, title, "Backup", &report.backups, &report.colors);
    }
    markup.close("article");
    let title = match report.days.bar_days {
        1 => "Stored by day".to_string(),
        7 => "Stored by week".to_string(),
        days => format!("Stored by spans of {days} days"),
    };
    begin_card(
        markup,
        &title,
        "With what was removed since; days long ago are one bar.",
    );
    let has_bars = report.days.bars.iter().any(|bar| bar.sum() > 0);
    if has_bars {
        charts::bars(markup, &title, &report.days.bars, &report.colors);
        legend(markup, &report.colors);
        bar_table(markup, &title, "From", &report.days.bars, &report.colors);
    } else {
        empty(markup, "Nothing was stored yet.");
    }
    markup.close("article");
}

fn factors(markup: &mut Markup, report: &Report) {
    let title = "How much less that is";
    let about = "Bytes of files by bytes stored, over all backups up to a time.";
    begin_card(markup, title, about);
    match &report.factors[..] {
        [] | [_] => empty(markup, "Two backups are needed to tell."),
        points => {
            charts::factors(markup, title, points);
            let names = ["deduplication", "compression and deltas", "both"].map(String::from);
            legend(markup, &names);
            let heads = [
                "Up to",
                ">Deduplication",
                ">Compression and deltas",
                ">Both",
            ];
            let rows = points.iter().map(|one| {
                vec![
                    one.label.clone(),
                    format!("{}×", charts::times(one.dedup)),
                    format!("{}×", charts::times(one.encoding)),
                    format!("{}×", charts::times(one.all)),
                ]
            });
            details(markup, title, &heads, &rows.collect::<Vec<_>>());
        }
    }
    markup.close("article");
}

fn codecs(markup: &mut Markup, report: &Report) {
    let title = "How it is stored";
    begin_card(
        markup,
        title,
        "Records that snapshots need, by their encoding.",
    );
    let names = ["as it is", "compressed", "as deltas"];
    let codecs = names.iter().zip(&report.stats.codecs);
    let used = codecs.clone().filter(|(_, codec)| codec.records > 0);
    let bars: Vec<Source> = used
        .map(|(name, codec)| Source {
            name: match codec.factor() {
                1.05.. => format!("{name}, {} times less", charts::times(codec.factor())),
                _ => name.to_string(),
            },
            what: words::count(codec.records, "record", "records"),
            bytes: codec.stored_bytes,
        })
        .collect();
    if bars.is_empty() {
        empty(markup, "Nothing is stored yet.");
    } else {
        charts::sources(markup, title, &bars);
        let heads = [
            "Encoding",
            ">Records",
            ">Bytes of chunks",
            ">Stored",
            ">Factor",
        ];
        let rows = codecs.map(|(name, codec)| {
            vec![
                name.to_string(),
                codec.records.to_string(),
                words::size(codec.plain_bytes),
                words::size(codec.stored_bytes),
                format!("{}×", charts::times(codec.factor())),
            ]
        });
        details(markup, title, &heads, &rows.collect::<Vec<_>>());
    }
    markup.close("article");
}

fn sources(markup: &mut Markup, title: &str, about: &str, sources: &[Source]) {
    begin_card(markup, title, about);
    if sources.is_empty() {
        empty(markup, "Nothing to tell.");
    } else {
        charts::sources(markup, title, sources);
        let heads = ["What", "Kind", ">Stored"];
        let rows = sources.iter().map(|source| {
            vec![
                elided(&source.name, 2 * NAME_CHARS_MAX),
                elided(&source.what, 2 * NAME_CHARS_MAX),
                words::size(source.bytes),
            ]
        });
        details(markup, title, &heads, &rows.collect::<Vec<_>>());
    }
    markup.close("article");
}

/// Which days have snapshots, and why they are kept.
pub(super) fn retention(markup: &mut Markup, report: &Report) {
    begin(markup, "What is kept");
    if report.snapshots.is_empty() {
        empty(markup, "There is no snapshot yet.");
        markup.close("section");
        return;
    }
    markup.open("div", &[("class", "grid")]);
    let title = "Days with snapshots";
    begin_card(markup, title, "The last 53 weeks; darker is more.");
    charts::calendar(markup, title, &report.calendar);
    heat_legend(markup);
    if report.calendar.older > 0 {
        let count = words::count(report.calendar.older, "snapshot is", "snapshots are");
        empty(markup, &format!("{count} older than that."));
    }
    let heads = ["Day", ">Snapshots", "Kept as"];
    let rows = report
        .calendar
        .days
        .iter()
        .rev()
        .map(|(day, (count, why))| {
            vec![
                day.to_string(),
                count.to_string(),
                elided(why, 2 * NAME_CHARS_MAX),
            ]
        });
    details(markup, title, &heads, &rows.collect::<Vec<_>>());
    markup.close("article");
    let title = "Hours of the last seven days";
    begin_card(markup, title, "When there are snapshots to go back to.");
    charts::hours(markup, title, &report.calendar);
    let heads = ["Hour", ">Snapshots"];
    let rows = report
        .calendar
        .hours
        .iter()
        .rev()
        .map(|((day, hour), count)| vec![format!("{day} {hour:02}:00"), count.to_string()]);
    details(markup, title, &heads, &rows.collect::<Vec<_>>());
    markup.close("article");
    let title = "Why they are kept";
    begin_card(markup, title, "One snapshot may be kept by several rules.");
    let rows = report
        .rules
        .iter()
        .map(|(rule, count)| vec![rule.clone(), count.to_string()]);
    table(
        markup,
        title,
        &["Rule", ">Snapshots"],
        &rows.collect::<Vec<_>>(),
    );
    markup.close("article");
    markup.close("div");
    snapshots(markup, report);
    markup.close("section");
}

fn snapshots(markup: &mut Markup, report: &Report) {
    let count = report.snapshots.len() as u64;
    let title = match report.stats.totals.snapshots > count {
        true => format!("The newest {count} of {}", report.stats.totals.snapshots),
        false => "All snapshots".to_string(),
    };
    let heads = [
        "Snapshot", "Made", "Of", ">Size", ">Stored", ">Alone", "Kept as",
    ];
    let rows = report.snapshots.iter().map(|one| {
        vec![
            one.id.short(),
            words::local(one.at, &report.zone),
            elided(&one.what, NAME_CHARS_MAX),
            words::size(one.size_bytes),
            words::size(one.stored_bytes),
            words::size(one.alone_bytes),
            elided(&one.why, 2 * NAME_CHARS_MAX),
        ]
    });
    details(markup, &title, &heads, &rows.collect::<Vec<_>>());
}

/// What was restored to prove it, and the last check.
pub(super) fn proofs(markup: &mut Markup, report: &Report) {
    begin(markup, "What is proven");
    let check = match report.status.check {
        None => "This machine has not checked the repository: statekeep check".to_string(),
        Some(check) => format!(
            "The last check from this machine was {} and read {} % of the data; {}.",
            words::ago(report.now.since_ns(check.at).max(0) / SECOND_NS),
            check.read_percent,
            match check.problems {
                0 => "everything was right".to_string(),
                count => words::count(count, "object was wrong", "objects were wrong"),
            }
        ),
    };
    markup.element("p", &[], &check);
    if report.proofs.is_empty() {
        empty(markup, "No restore was rehearsed yet: statekeep drill");
    } else {
        let heads = ["Drill", "Snapshot", "Of", "Passed", "Result"];
        let rows = report.proofs.iter().map(|one| {
            vec![
                words::local(one.at, &report.zone),
                one.id.short(),
                elided(&one.what, NAME_CHARS_MAX),
                if one.passed { "✓ yes" } else { "✗ NO" }.to_string(),
                elided(&one.result, 3 * NAME_CHARS_MAX),
            ]
        });
        table(markup, "Drills", &heads, &rows.collect::<Vec<_>>());
    }
    markup.close("section");
}

fn bar_table(markup: &mut Markup, title: &str, head: &str, bars: &[Bar], colors: &[String]) {
    let heads = [head, "Application", ">Stored"];
    let rows = bars.iter().rev().flat_map(|bar| {
        bar.parts.iter().map(|(color, bytes)| {
            let name = colors.get(*color).map_or("others", String::as_str);
            vec![
                bar.label.clone(),
                elided(name, NAME_CHARS_MAX),
                words::size(*bytes),
            ]
        })
    });
    details(markup, title, &heads, &rows.collect::<Vec<_>>());
}
