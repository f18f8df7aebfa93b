//! What sections are made of: cards, legends, tables.

use crate::ops::report::charts::SERIES_CLASSES;
use crate::ops::report::markup::Markup;
use crate::ops::report::markup::elided;

/// Names are shown with so many characters.
pub(super) const NAME_CHARS_MAX: usize = 60;

/// Begins a section.
pub(super) fn begin(markup: &mut Markup, title: &str) {
    markup.open("section", &[]);
    markup.element("h2", &[], title);
}

/// Begins a card with a title and what it is about.
pub(super) fn begin_card(markup: &mut Markup, title: &str, about: &str) {
    markup.open("article", &[]);
    markup.element("h3", &[], title);
    markup.element("p", &[("class", "quiet")], about);
}

/// Writes a remark, for example that there is nothing.
pub(super) fn empty(markup: &mut Markup, text: &str) {
    markup.element("p", &[("class", "note")], text);
}

/// Writes what the colours mean.
pub(super) fn legend(markup: &mut Markup, names: &[String]) {
    markup.open("ul", &[("class", "legend")]);
    for (name, class) in names.iter().zip(SERIES_CLASSES) {
        markup.open("li", &[]);
        swatch(markup, class);
        markup.text(&elided(name, NAME_CHARS_MAX));
        markup.close("li");
    }
    markup.close("ul");
}

/// Writes what the shades of the calendar mean.
pub(super) fn heat_legend(markup: &mut Markup) {
    markup.open("ul", &[("class", "legend")]);
    let steps = [
        ("none", "none"),
        ("h1", "1"),
        ("h2", "2–5"),
        ("h3", "6–23"),
        ("h4", "24 or more"),
    ];
    for (class, text) in steps {
        markup.open("li", &[]);
        swatch(markup, class);
        markup.text(text);
        markup.close("li");
    }
    markup.close("ul");
}

fn swatch(markup: &mut Markup, class: &'static str) {
    let at = [
        ("class", "swatch"),
        ("viewBox", "0 0 10 10"),
        ("aria-hidden", "true"),
    ];
    markup.open("svg", &at);
    let at = [("class", class), ("width", "10"), ("height", "10")];
    markup.shape("rect", &at);
    markup.close("svg");
}

/// A table behind a chart, closed until it is asked for.
pub(super) fn details(markup: &mut Markup, title: &str, heads: &[&str], rows: &[Vec<String>]) {
    markup.open("details", &[]);
    markup.element("summary", &[], &format!("{title}: table"));
    table(markup, title, heads, rows);
    markup.close("details");
}

/// A table; heads that begin with `>` are of numbers.
pub(super) fn table(markup: &mut Markup, title: &str, heads: &[&str], rows: &[Vec<String>]) {
    let at = [
        ("class", "scroll"),
        ("tabindex", "0"),
        ("role", "region"),
        ("aria-label", title),
    ];
    markup.open("div", &at);
    markup.open("table", &[]);
    markup.open("thead", &[]);
    markup.open("tr", &[]);
    let class = |head: &str| {
        if head.starts_with('>') {
            "number"
        } else {
            "word"
        }
    };
    for head in heads {
        let at = [("scope", "col"), ("class", class(head))];
        markup.element("th", &at, head.trim_start_matches('>'));
    }
    markup.close("tr");
    markup.close("thead");
    markup.open("tbody", &[]);
    for row in rows {
        markup.open("tr", &[]);
        for (cell, head) in row.iter().zip(heads) {
            markup.element("td", &[("class", class(head))], cell);
        }
        markup.close("tr");
    }
    markup.close("tbody");
    markup.close("table");
    markup.close("div");
}
