//! Writes values and profiles as TOML.

use toml::de::DeTable;
use toml::de::DeValue;

/// Returns a string as TOML.
pub fn text(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Returns a name as a part of a key.
pub fn name(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match !name.is_empty() && name.chars().all(is_bare) {
        true => name.to_string(),
        false => text(name),
    }
}

/// Returns a list of strings as TOML.
pub fn texts(texts: &[impl AsRef<str>]) -> String {
    let texts: Vec<String> = texts.iter().map(|item| text(item.as_ref())).collect();
    format!("[{}]", texts.join(", "))
}

/// Returns a value as TOML on one line.
pub(super) fn value(found: &DeValue<'_>) -> String {
    match found {
        DeValue::String(string) => text(string),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| value(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(table) => inline(table),
    }
}

fn inline(table: &DeTable<'_>) -> String {
    let pairs = table
        .iter()
        .map(|(key, inner)| format!("{} = {}", name(key.get_ref()), value(inner.get_ref())));
    format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
}
