//! The page as a whole: its head with the policy that forbids everything else, and its sections.

use crate::codec::sha256::Sha256Hasher;
use crate::ops::report::Report;
use crate::ops::report::markup::Markup;
use crate::ops::report::sections;
use crate::ops::words;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const STYLE: &str = include_str!("style.css");

/// Makes the page.
pub fn render(report: &Report) -> String {
    let mut markup = Markup::default();
    head(&mut markup, report);
    markup.open("body", &[]);
    markup.open("main", &[]);
    sections::top(&mut markup, report);
    sections::applications(&mut markup, report);
    sections::growth(&mut markup, report);
    sections::retention(&mut markup, report);
    sections::proofs(&mut markup, report);
    markup.open("footer", &[]);
    let made = words::local_with_zone(report.now, &report.zone);
    markup.text(&format!(
        "statekeep {}, {made}. Days of figures are days in UTC, all other times are of the zone \
         above.",
        env!("CARGO_PKG_VERSION")
    ));
    markup.close("footer");
    markup.verbatim("</main></body></html>\n");
    markup.finish()
}

fn head(markup: &mut Markup, report: &Report) {
    markup.verbatim("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    // The style is allowed by its hash: a style that came in by a name would not be.
    let mut hasher = Sha256Hasher::new();
    hasher.update(STYLE.as_bytes());
    let hash = STANDARD.encode(hasher.sum().0);
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'"
    );
    let at = [
        ("http-equiv", "Content-Security-Policy"),
        ("content", &*policy),
    ];
    markup.open("meta", &at);
    let metas = [
        ("viewport", "width=device-width, initial-scale=1"),
        ("referrer", "no-referrer"),
        ("robots", "noindex"),
        ("color-scheme", "light dark"),
    ];
    for (name, content) in metas {
        markup.open("meta", &[("name", name), ("content", content)]);
    }
    markup.element("title", &[], &format!("Backups in {}", report.name));
    markup.verbatim("<style>");
    markup.verbatim(STYLE);
    markup.verbatim("</style></head>");
}
