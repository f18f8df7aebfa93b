//! Writes markup in which nothing that comes from outside is anything but text.
//!
//! Invariant: names of elements and attributes are words of this program; every value and every
//! text goes through `escape`. Names of files and profiles are chosen by whoever can write them.

use crate::ops::words;

/// Markup that grows.
#[derive(Debug, Default)]
pub(super) struct Markup {
    out: String,
}

/// Attributes of an element.
pub(super) type Attributes<'a> = &'a [(&'static str, &'a str)];

impl Markup {
    /// Returns what was written.
    pub(super) fn finish(self) -> String {
        self.out
    }

    /// Writes words of this program as they are.
    pub(super) fn verbatim(&mut self, text: &'static str) {
        self.out.push_str(text);
    }

    /// Writes the start of an element.
    pub(super) fn open(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.start(name, attributes);
        self.out.push('>');
    }

    /// Writes the end of an element.
    pub(super) fn close(&mut self, name: &'static str) {
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
    }

    /// Writes an element of SVG without content.
    pub(super) fn shape(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.start(name, attributes);
        self.out.push_str("/>");
    }

    /// Writes an element with a text.
    pub(super) fn element(&mut self, name: &'static str, attributes: Attributes<'_>, text: &str) {
        self.open(name, attributes);
        self.text(text);
        self.close(name);
    }

    /// Writes an element of SVG that shows a text to whoever points at it.
    pub(super) fn titled(&mut self, name: &'static str, attributes: Attributes<'_>, title: &str) {
        self.open(name, attributes);
        self.element("title", &[], title);
        self.close(name);
    }

    /// Writes a text.
    pub(super) fn text(&mut self, text: &str) {
        escape(&mut self.out, text);
    }

    fn start(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.out.push('<');
        self.out.push_str(name);
        for (key, value) in attributes {
            self.out.push(' ');
            self.out.push_str(key);
            self.out.push_str("=\"");
            escape(&mut self.out, value);
            self.out.push('"');
        }
    }
}

fn escape(out: &mut String, text: &str) {
    for c in words::safe(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

/// Returns a name that is short enough to be shown: its ends say most.
pub(super) fn elided(name: &str, chars_max: usize) -> String {
    let count = name.chars().count();
    if count <= chars_max {
        return name.to_string();
    }
    let head = chars_max / 3;
    let tail = chars_max - head - 1;
    let start = name.chars().take(head);
    let end = name.chars().skip(count - tail);
    start.chain(['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(elided("abc", 3), "abc");
        assert_eq!(elided("abcdefghij", 7), "ab…ghij");
    }

    proptest! {
        #[test]
        fn nothing_from_outside_is_markup(text: String, value: String) {
            let mut markup = Markup::default();
            markup.element("p", &[("title", &value)], &text);
            let out = markup.finish();

            prop_assert_eq!(out.matches('<').count(), 2);
            prop_assert_eq!(out.matches('>').count(), 2);
            prop_assert_eq!(out.matches('"').count(), 2);
            prop_assert!(!out.contains('\''));
            prop_assert!(!out.contains(char::is_control));
        }
    }
}
