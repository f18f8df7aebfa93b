//! Changes one value of a profile in the text of a configuration, and nothing else: comments, order
//! and spaces stay as somebody wrote them.

use crate::config::write;
use toml::de::DeTable;
use toml::de::DeValue;

/// A text with one line changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The whole text.
    pub text: String,
    /// The number of the line.
    pub line: usize,
    /// What it was; `None` if it is new.
    pub old_line: Option<String>,
    /// What it is.
    pub new_line: String,
}

/// Why a value cannot be changed by changing one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uneditable {
    /// There is no such profile, or no table that it is.
    NoProfile,
    /// It stands in the defaults, on this line, and counts for other profiles too.
    InDefaults(usize),
    /// The profile is written on this line as a whole.
    OnOneLine(usize),
}

/// Sets a key of a profile to a value, which is TOML on one line.
pub fn set(text: &str, profile: &str, key: &str, value: &str) -> Result<Edited, Uneditable> {
    let file = DeTable::parse(text).map_err(|_| Uneditable::NoProfile)?;
    let file = file.get_ref();
    let profiles = table(file, "profile").ok_or(Uneditable::NoProfile)?;
    let own = table(profiles, profile).ok_or(Uneditable::NoProfile)?;
    if let Some(found) = own.get(key) {
        let span = found.span();
        return Ok(edited(text, span.start, span.end, value));
    }
    let defaults = table(file, "defaults");
    if let Some((found, _)) = defaults.and_then(|defaults| defaults.get_key_value(key)) {
        return Err(Uneditable::InDefaults(line_number(
            text,
            found.span().start,
        )));
    }
    // Every profile has a root; the new line stands below it, and begins as that line does.
    let (root, root_value) = own.get_key_value("root").ok_or(Uneditable::NoProfile)?;
    let root_start = root.span().start;
    let before = &text[line_start(text, root_start)..root_start];
    if before.contains(['{', ',']) {
        return Err(Uneditable::OnOneLine(line_number(text, root_start)));
    }
    let new_line = format!("{before}{} = {value}", write::name(key));
    let rest = &text[root_value.span().end..];
    let (at, end_of_line) = match rest.find('\n') {
        Some(at) => (text.len() - rest.len() + at + 1, &rest[..at]),
        None => (text.len(), rest),
    };
    let line_end = if end_of_line.ends_with('\r') {
        "\r\n"
    } else {
        "\n"
    };
    let (above, below) = text.split_at(at);
    let gap = if above.ends_with('\n') { "" } else { line_end };
    Ok(Edited {
        text: format!("{above}{gap}{new_line}{line_end}{below}"),
        line: line_number(above, above.len()) + usize::from(!gap.is_empty()),
        old_line: None,
        new_line,
    })
}

fn table<'t>(of: &'t DeTable<'t>, name: &str) -> Option<&'t DeTable<'t>> {
    match of.get(name)?.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

fn edited(text: &str, start: usize, end: usize, value: &str) -> Edited {
    let new_text = format!("{}{value}{}", &text[..start], &text[end..]);
    let line_of = |text: &str, end: usize| {
        let rest = text[end..].lines().next().unwrap_or_default().len();
        text[line_start(text, start)..end + rest].to_string()
    };
    Edited {
        line: line_number(text, start),
        old_line: Some(line_of(text, end)),
        new_line: line_of(&new_text, start + value.len()),
        text: new_text,
    }
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

fn line_number(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(text: &str, key: &str, value: &str) -> Edited {
        set(text, "app", key, value).unwrap()
    }

    #[test]
    fn a_value_changes_and_everything_around_it_stays() {
        let text = "# mine\nversion = 1\n[profile.app]\nroot = '/a'\n\
            compression   =  3   # as fast as it gets\nexact = true\n";

        let done = change(text, "compression", "12");

        assert_eq!(done.text, text.replace("  3 ", "  12 "));
        assert_eq!(done.line, 5);
        let old = done.old_line.unwrap();
        assert_eq!(old, "compression   =  3   # as fast as it gets");
        assert_eq!(done.new_line, old.replace("  3 ", "  12 "));
    }

    #[test]
    fn a_new_key_stands_below_the_root_however_the_profile_is_written() {
        let cases = [
            (
                "[profile.app]\nroot = '/a' # where\n\n[profile.app.drill]\n",
                "[profile.app]\nroot = '/a' # where\ndelta-run = 64\n\n[profile.app.drill]\n",
            ),
            (
                "[profile]\n  app.root = '/a'\n  app.exact = true",
                "[profile]\n  app.root = '/a'\n  app.delta-run = 64\n  app.exact = true",
            ),
            (
                "[profile.app]\r\nroot = '/a'\r\ntags = ['x']\r\n",
                "[profile.app]\r\nroot = '/a'\r\ndelta-run = 64\r\ntags = ['x']\r\n",
            ),
            (
                "profile.\"app\".root = '/a'",
                "profile.\"app\".root = '/a'\nprofile.\"app\".delta-run = 64\n",
            ),
        ];
        for (text, expected) in cases {
            let done = change(text, "delta-run", "64");
            assert_eq!(done.text, expected);
            assert_eq!(done.old_line, None);
            let line = done.text.lines().nth(done.line - 1).unwrap();
            assert_eq!(line, done.new_line);
        }
    }

    #[test]
    fn what_one_line_cannot_say_is_refused() {
        let set = |text: &str| set(text, "app", "compression", "6").unwrap_err();
        let inline = "[profile]\napp = { root = '/a', exact = true }\n";
        let defaults = "[defaults]\ncompression = 9\n[profile.app]\nroot = '/a'\n";
        assert_eq!(set(inline), Uneditable::OnOneLine(2));
        assert_eq!(set(defaults), Uneditable::InDefaults(2));
        for text in ["", "[profile.other]\nroot = '/a'\n", "profile = 3\n", "= ="] {
            assert_eq!(set(text), Uneditable::NoProfile);
        }
    }
}
