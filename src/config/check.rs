//! Holds a file against the tables of `keys`: unknown keys, wrong types, values that make no
//! sense. What passes can be read without asking again.

use crate::config::duration;
use crate::config::fault::Faults;
use crate::config::fault::nearest;
use crate::config::keys;
use crate::config::keys::Key;
use crate::config::keys::Shape;
use crate::config::schedule::Schedule;
use crate::ops::notify::Endpoint;
use crate::source::files::Patterns;
use crate::source::files::Rules;
use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

/// The version of the format of the file.
const VERSION: &str = "1";
/// The end of names that people give; longer ones break tables.
const NAME_CHARS_MAX: usize = 64;

/// Checks a table.
pub(super) fn table(
    faults: &mut Faults<'_>,
    at: &str,
    found: &DeTable<'_>,
    offset: usize,
    keys: &'static [Key],
) {
    for (name, value) in found {
        let start = name.span().start;
        match keys::find(keys, name.get_ref()) {
            Some(key) => self::value(faults, &join(at, key.name), value, start, key.shape),
            None => unknown(faults, at, name.get_ref(), start, keys),
        }
    }
    for key in keys.iter().filter(|key| key.is_required) {
        if !found.contains_key(key.name) {
            let message = format!("{} lacks `{}`", place(at), key.name);
            let hint = match key.shape {
                Shape::Version => "version = 1".to_string(),
                _ => format!("{} = …: {}", key.name, key.about.to_lowercase()),
            };
            faults.add(offset, message, Some(hint));
        }
    }
}

fn unknown(faults: &mut Faults<'_>, at: &str, name: &str, start: usize, keys: &'static [Key]) {
    let shown = keys
        .iter()
        .filter(|key| !matches!(key.shape, Shape::Forbidden(_)));
    let names = shown.map(|key| key.name);
    let hint = match nearest(name, names.clone()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("known here: {}", names.collect::<Vec<_>>().join(", ")),
    };
    faults.add(
        start,
        format!("unknown key `{name}` in {}", place(at)),
        Some(hint),
    );
}

fn value(
    faults: &mut Faults<'_>,
    at: &str,
    found: &Spanned<DeValue<'_>>,
    start: usize,
    shape: Shape,
) {
    let value = found.get_ref();
    let text = value.as_str();
    match (shape, value) {
        (Shape::Forbidden(why), _) => {
            faults.add(start, format!("`{at}` is refused: {why}"), None);
        }
        (Shape::Version, DeValue::Integer(number)) if number.as_str() == VERSION => {}
        (Shape::Version, DeValue::Integer(number)) => {
            let message = format!("`version` is {number}, and this program knows version 1");
            faults.add(start, message, None);
        }
        (Shape::Flag, DeValue::Boolean(_)) => {}
        (Shape::Count, DeValue::Integer(_)) if count(value).is_some() => {}
        (Shape::UpTo(most), DeValue::Integer(_)) if count(value).is_some_and(|n| n <= most) => {}
        (Shape::UpTo(most), _) => {
            let message = format!("`{at}` must be a whole number from 1 to {most}");
            faults.add(start, message, None);
        }
        (Shape::Table(keys), DeValue::Table(inner)) => {
            table(faults, at, inner, found.span().start.max(start), keys);
        }
        (Shape::Named(keys), DeValue::Table(inner)) => named(faults, at, inner, keys),
        (Shape::Tables(keys), DeValue::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                let (at, start) = (format!("{at}[{index}]"), item.span().start);
                self::value(faults, &at, item, start, Shape::Table(keys));
            }
        }
        (Shape::Argvs, DeValue::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                let (at, start) = (format!("{at}[{index}]"), item.span().start);
                self::value(faults, &at, item, start, Shape::Argv);
            }
        }
        (Shape::Argv, DeValue::Array(_)) => argv(faults, at, value, start),
        (Shape::Patterns | Shape::Rules | Shape::Tags | Shape::Choices(_), DeValue::Array(_)) => {
            texts(faults, at, value, start, shape);
        }
        (_, DeValue::String(_)) if is_text(shape) => {
            let wrong = text.and_then(|text| wrong_text(shape, text));
            if let Some(wrong) = wrong {
                faults.add(start, format!("`{at}`: {wrong}"), None);
            }
        }
        _ => {
            let (wanted, example) = wanted(shape);
            let message = format!("`{at}` must be {wanted}, and is {}", kind(value));
            faults.add(start, message, Some(format!("{} = {example}", last(at))));
        }
    }
}

fn named(faults: &mut Faults<'_>, at: &str, found: &DeTable<'_>, keys: &'static [Key]) {
    for (name, inner) in found {
        let (start, text) = (name.span().start, name.get_ref());
        if let Some(wrong) = wrong_name(text) {
            faults.add(
                start,
                format!("{text:?} is no name for a {at}: {wrong}"),
                None,
            );
        }
        value(faults, &join(at, text), inner, start, Shape::Table(keys));
    }
}

/// Returns why something is no name: it stands in file names, references and command lines.
pub(super) fn wrong_name(name: &str) -> Option<&'static str> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match name {
        "" => Some("it is empty"),
        name if name.len() > NAME_CHARS_MAX => Some("it is longer than 64 characters"),
        name if name.starts_with(['-', '.']) => Some("it begins with a dash or a dot"),
        name if !name.chars().all(is_good) => Some("letters, digits, '-', '_' and '.' are allowed"),
        _ => None,
    }
}

fn argv(faults: &mut Faults<'_>, at: &str, value: &DeValue<'_>, start: usize) {
    texts(faults, at, value, start, Shape::Argv);
    let program = value
        .as_array()
        .and_then(|items| Some(items.first()?.get_ref().as_str()));
    match program {
        None => faults.add(start, format!("`{at}` names no program"), None),
        Some(Some(program)) if program.is_empty() || program.contains(char::is_whitespace) => {
            let message = format!("`{at}` names {program:?} as its program");
            let hint = "no shell reads it: every argument is a string of its own, \
                        [\"systemctl\", \"stop\", \"app\"]";
            faults.add(start, message, Some(hint.to_string()));
        }
        Some(_) => {}
    }
}

fn texts(faults: &mut Faults<'_>, at: &str, value: &DeValue<'_>, start: usize, shape: Shape) {
    for item in value.as_array().into_iter().flat_map(|items| items.iter()) {
        let (start, inner) = (item.span().start.max(start), item.get_ref());
        let Some(text) = inner.as_str() else {
            let message = format!(
                "`{at}` must be a list of strings, and holds {}",
                kind(inner)
            );
            faults.add(start, message, None);
            continue;
        };
        let wrong = match shape {
            Shape::Patterns => Patterns::parse(&[text])
                .err()
                .map(|error| error.to_string()),
            Shape::Rules => Rules::parse(&[text]).err().map(|error| error.to_string()),
            Shape::Tags => wrong_name(text).map(|why| format!("{text:?} is no tag: {why}")),
            Shape::Choices(choices) => wrong_text(Shape::Choice(choices), text),
            _ if text.contains('\0') => Some("it holds a zero byte".to_string()),
            _ => None,
        };
        if let Some(wrong) = wrong {
            faults.add(start, format!("`{at}`: {wrong}"), None);
        }
    }
}

fn is_text(shape: Shape) -> bool {
    use Shape::Choice;
    use Shape::Duration;
    use Shape::Endpoint;
    use Shape::Header;
    use Shape::Path;
    use Shape::Text;
    use Shape::Url;
    matches!(
        shape,
        Text | Url | Path | Endpoint | Header | Duration | Shape::Schedule | Choice(_)
    )
}

fn wrong_text(shape: Shape, text: &str) -> Option<String> {
    match shape {
        Shape::Choice(choices) if !choices.contains(&text) => {
            let meant = nearest(text, choices.iter().copied());
            let meant = meant.map_or(String::new(), |meant| format!("; did you mean {meant:?}?"));
            Some(format!("{text:?} is none of {}{meant}", choices.join(", ")))
        }
        Shape::Choice(_) => None,
        Shape::Duration => duration::parse(text).err(),
        Shape::Schedule => text.parse::<Schedule>().err(),
        // What is no address may be a part of one, and is not repeated.
        Shape::Endpoint => Endpoint::parse(text).err().map(String::from),
        Shape::Header => wrong_header(text).map(|why| format!("{text:?}: {why}")),
        _ if text.is_empty() => Some("it is empty".to_string()),
        _ if text.contains('\0') => Some("it holds a zero byte".to_string()),
        Shape::Path if text.starts_with('~') && text != "~" && !text.starts_with("~/") => Some(
            format!("{text:?}: only ~/ stands for a home directory, that of the user"),
        ),
        Shape::Url if text.contains("://") => Some(format!(
            "{text:?} is no directory, and repositories are directories so far"
        )),
        _ => None,
    }
}

/// Returns why something cannot be the name of a header that carries a token.
fn wrong_header(name: &str) -> Option<&'static str> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let taken = ["host", "content-length", "content-type", "connection"];
    let taken = taken.iter().chain(&["transfer-encoding", "user-agent"]);
    match name {
        name if name.is_empty() || !name.chars().all(is_good) => {
            Some("a header is named by letters, digits and '-'")
        }
        name if taken
            .into_iter()
            .any(|other| name.eq_ignore_ascii_case(other)) =>
        {
            Some("this header says something else")
        }
        _ => None,
    }
}

/// Returns a whole number from 1 on.
pub(super) fn count(value: &DeValue<'_>) -> Option<u32> {
    let number = value.as_integer()?;
    let count = u32::from_str_radix(number.as_str(), number.radix()).ok()?;
    (count > 0).then_some(count)
}

/// Returns what is wanted, and an example.
fn wanted(shape: Shape) -> (&'static str, &'static str) {
    match shape {
        Shape::Version => ("the number 1", "1"),
        Shape::Text | Shape::Choice(_) | Shape::Forbidden(_) => ("a string", "\"…\""),
        Shape::Url => ("a string", "\"/var/backups/statekeep\""),
        Shape::Path => ("a path as a string", "\"/srv/app\""),
        Shape::Endpoint => ("an address as a string", "\"https://hc.example/…\""),
        Shape::Header => ("a string", "\"X-Token\""),
        Shape::Choices(_) => ("a list of strings", "[\"failure\"]"),
        Shape::Flag => ("true or false", "true"),
        Shape::Count | Shape::UpTo(_) => ("a whole number from 1 on", "7"),
        Shape::Duration => (duration::EXPECTED, "\"30d\""),
        Shape::Schedule => ("a schedule as a string", "\"0 2 * * *\""),
        Shape::Argv => (
            "a list of a program and its arguments",
            "[\"systemctl\", \"stop\", \"app\"]",
        ),
        Shape::Argvs => ("a list of such lists", "[[\"app\", \"upgrade\"]]"),
        Shape::Patterns | Shape::Rules => ("a list of strings", "[\"data/**\"]"),
        Shape::Tags => ("a list of strings", "[\"nightly\"]"),
        Shape::Table(_) => ("a table", "{ … }"),
        Shape::Named(_) => ("tables with names of their own", "{ NAME = { … } }"),
        Shape::Tables(_) => ("a list of tables", "[{ … }]"),
    }
}

fn kind(value: &DeValue<'_>) -> String {
    match value {
        // An address may be a secret, and stand where none is expected.
        DeValue::String(text) if text.contains("://") => "an address".to_string(),
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(flag) => format!("{flag}"),
        DeValue::Datetime(_) => "a date".to_string(),
        DeValue::Array(_) => "a list".to_string(),
        DeValue::Table(_) => "a table".to_string(),
    }
}

/// Returns the key of something within a table.
pub(super) fn join(at: &str, name: &str) -> String {
    match at {
        "" => name.to_string(),
        at => format!("{at}.{name}"),
    }
}

fn last(at: &str) -> &str {
    let name = at.rsplit('.').next().unwrap_or(at);
    name.split('[').next().unwrap_or(name)
}

fn place(at: &str) -> String {
    match at {
        "" => "the file".to_string(),
        at => format!("[{at}]"),
    }
}
