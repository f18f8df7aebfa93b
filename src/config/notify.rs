//! Reads who is told how backups went, and keeps the addresses out of what is shown.

use crate::config::Place;
use crate::config::check;
use crate::config::fault::Faults;
use crate::config::keys;
use crate::config::read::Source;
use crate::config::settings::EndpointOrigin;
use crate::config::settings::TokenOrigin;
use crate::config::settings::Webhook;
use crate::config::write;
use crate::ops::notify::Endpoint;
use crate::ops::notify::Event;
use std::time::Duration;
use toml::de::DeValue;

const TIMEOUT: Duration = Duration::from_secs(10);
/// A backup may wait for so long at most.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// The two ways to say who is pinged.
const PINGS: [&str; 2] = ["ping", "ping-file"];
const URLS: [&str; 2] = ["url", "url-file"];

/// Reads who is pinged. A profile that says it one way does not get the other from the defaults.
pub(super) fn ping(place: &Place, table: Source<'_>) -> Option<EndpointOrigin> {
    let is_own = PINGS.iter().any(|key| table.own_start(key).is_some());
    endpoint(place, if is_own { table.alone() } else { table }, PINGS)
}

/// Reads who gets documents.
pub(super) fn webhook(place: &Place, table: Source<'_>) -> Option<Webhook> {
    let table = table.table("webhook")?;
    let file = table.text("token-file");
    let file = file.map(|text| TokenOrigin::File(place.resolve(&text)));
    let command = table.texts("token-command").map(TokenOrigin::Command);
    let variable = table.text("token-env").map(TokenOrigin::Variable);
    let named = |names: Vec<String>| {
        let all = Event::ALL.into_iter();
        all.filter(|event| names.iter().any(|name| name == event.name()))
            .collect()
    };
    Some(Webhook {
        endpoint: endpoint(place, table, URLS)?,
        on: match table.texts("on") {
            Some(names) => named(names),
            None => vec![Event::Failure, Event::Overdue],
        },
        token: file.or(command).or(variable),
        header: table.text("header"),
        timeout: table
            .duration("timeout")
            .unwrap_or(TIMEOUT)
            .min(TIMEOUT_MAX),
    })
}

fn endpoint(place: &Place, table: Source<'_>, keys: [&str; 2]) -> Option<EndpointOrigin> {
    let said = table.text(keys[0]);
    let said = said.and_then(|text| Endpoint::parse(&text).ok());
    let file = || Some(place.resolve(&table.text(keys[1])?));
    said.map(EndpointOrigin::Said)
        .or_else(|| file().map(EndpointOrigin::File))
}

/// Finds what is said in several ways, or in none.
pub(super) fn one_way(faults: &mut Faults<'_>, at: &str, table: Source<'_>) {
    several(faults, at, "who is pinged", table, &PINGS);
    let start = table.own_start("webhook");
    let Some((webhook, start)) = table.alone().table("webhook").zip(start) else {
        return;
    };
    let at = check::join(at, "webhook");
    several(faults, &at, "where it is", webhook, &URLS);
    several(faults, &at, "what the token is", webhook, &keys::TOKENS);
    if URLS.iter().all(|key| webhook.own_start(key).is_none()) {
        let hint = "url = \"https://…\", or url-file = \"FILE\"".to_string();
        faults.add(start, format!("[{at}] lacks `url`"), Some(hint));
    }
}

fn several(faults: &mut Faults<'_>, at: &str, what: &str, table: Source<'_>, keys: &[&str]) {
    let said: Vec<&&str> = keys
        .iter()
        .filter(|key| table.own_start(key).is_some())
        .collect();
    if let [first, _, ..] = said[..] {
        let message = format!("[{at}] says {what} in several ways");
        let hint = format!("leave one of {}", keys.join(", "));
        faults.add(table.own_start(first).unwrap_or(0), message, Some(hint));
    }
}

/// Returns a value as TOML, of addresses only what may be shown.
pub(super) fn shown(key: &str, value: &DeValue<'_>) -> String {
    let address = |value: &DeValue<'_>| {
        let endpoint = value.as_str().and_then(|text| Endpoint::parse(text).ok());
        let host = endpoint.as_ref().map_or("", Endpoint::shown);
        write::text(&format!("{host}/(not shown)"))
    };
    match (key, value) {
        ("ping", value) => address(value),
        ("webhook", DeValue::Table(table)) => {
            let pairs = table.iter().map(|(key, inner)| {
                let value = match &**key.get_ref() {
                    "url" => address(inner.get_ref()),
                    _ => write::value(inner.get_ref()),
                };
                format!("{} = {value}", write::name(key.get_ref()))
            });
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        (_, value) => write::value(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::Fault;
    use crate::config::parse;

    fn read(text: &str) -> Result<Config, Vec<Fault>> {
        let place = Place {
            file: "/etc/statekeep/config.toml".into(),
            home: None,
        };
        parse(text, &place)
    }

    /// After `version = 1` on the first line: text, line, part of the message, part of the hint.
    const WRONG: &[(&str, usize, &str, &str)] = &[
        (
            "[profile.a]\nroot = '/a'\nping = 'hc.example/tr0ub4dor'",
            4,
            "`profile.a.ping`: it does not begin with https://",
            "",
        ),
        (
            "[profile.a]\nroot = '/a'\nping = 'https://h/x'\nping-file = 'y'",
            4,
            "[profile.a] says who is pinged in several ways",
            "leave one of ping, ping-file",
        ),
        (
            "[profile.a]\nroot = '/a'\nwebhook = 'https://h/tr0ub4dor'",
            4,
            "must be a table, and is an address",
            "",
        ),
        (
            "[profile.a]\nroot = '/a'\nwebhook = { on = ['failure'] }",
            4,
            "[profile.a.webhook] lacks `url`",
            "url-file",
        ),
        (
            "[defaults]\nwebhook = { url = 'https://h/x', token-env = 'A', token-file = 'b' }",
            3,
            "[defaults.webhook] says what the token is in several ways",
            "",
        ),
        (
            "[defaults]\nwebhook = { url = 'https://h/x', token = 'tr0ub4dor' }",
            3,
            "`defaults.webhook.token` is refused: a secret",
            "",
        ),
        (
            "[defaults]\nwebhook = { url = 'https://h/x', on = ['fail'] }",
            3,
            "\"fail\" is none of success, failure, overdue",
            "",
        ),
        (
            "[defaults]\nwebhook = { url = 'https://h/x', header = 'X: y' }",
            3,
            "a header is named by letters",
            "",
        ),
    ];

    #[test]
    fn every_fault_names_its_line_and_no_secret() {
        for (text, line, message, hint) in WRONG {
            let found = read(&format!("version = 1\n{text}"))
                .err()
                .unwrap_or_default();

            let is_it = |fault: &&Fault| fault.line == *line && fault.message.contains(message);
            let fault = found.iter().find(is_it);
            let fault = fault.unwrap_or_else(|| panic!("{text}: {found:#?}"));
            assert!(
                fault.hint.clone().unwrap_or_default().contains(hint),
                "{fault:#?}"
            );
            assert!(!format!("{found:?}").contains("tr0ub4dor"), "{found:?}");
        }
    }

    #[test]
    fn a_profile_pings_where_it_says_and_otherwise_where_the_defaults_say() {
        let config = read(
            "version = 1\nmetrics-file = 'm.prom'\n[defaults]\nping-file = 'p'\n\
         webhook = { url-file = 'w', token-command = ['pass', 'x'], timeout = '1h' }\n\
         [profile.a]\nroot = '/a'\nping = 'https://hc.example/tr0ub4dor'\n\
         [profile.b]\nroot = '/b'\nwebhook = { url = 'https://h/x', on = [] }\n",
        )
        .unwrap();

        let endpoint = |text| EndpointOrigin::Said(Endpoint::parse(text).unwrap());
        let (a, b) = (&config.profiles["a"], &config.profiles["b"]);
        assert_eq!(a.ping, Some(endpoint("https://hc.example/tr0ub4dor")));
        assert_eq!(
            b.ping,
            Some(EndpointOrigin::File("/etc/statekeep/p".into()))
        );
        let webhook = a.webhook.as_ref().unwrap();
        assert_eq!(
            webhook.endpoint,
            EndpointOrigin::File("/etc/statekeep/w".into())
        );
        assert_eq!(webhook.on, [Event::Failure, Event::Overdue]);
        let command = ["pass", "x"].map(String::from).to_vec();
        assert_eq!(webhook.token, Some(TokenOrigin::Command(command)));
        assert_eq!(webhook.timeout, Duration::from_secs(60));
        let webhook = b.webhook.as_ref().unwrap();
        assert_eq!(
            (&webhook.endpoint, &webhook.on),
            (&endpoint("https://h/x"), &vec![])
        );
        assert_eq!(config.metrics_file, Some("/etc/statekeep/m.prom".into()));
        // Neither what is shown nor what is printed for bugs holds an address.
        assert!(!format!("{config:?}").contains("tr0ub4dor"));
    }
}
