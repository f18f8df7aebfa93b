//! Tells others how a profile fared: who is pinged, and who gets documents.
//!
//! What comes of it never changes a result or an exit code: a delivery that fails is a warning.
//! Addresses and tokens are read here and shown nowhere (`ops::notify`).

use crate::cli::environment;
use crate::cli::json;
use crate::cli::json::FiguresBody;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config::EndpointOrigin;
use crate::config::Profile;
use crate::config::TokenOrigin;
use crate::config::Webhook;
use crate::context::Context;
use crate::ops::hook;
use crate::ops::notify;
use crate::ops::notify::Endpoint;
use crate::ops::notify::Event;
use crate::ops::notify::Message;
use crate::ops::notify::Patience;
use serde::Serialize;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// What a ping may take. Nothing waits for the one at the start but the backup itself.
const PING: Patience = Patience {
    timeout: Duration::from_secs(10),
    retries: 2,
    pause: PAUSE,
};
const PING_AT_START: Patience = Patience {
    timeout: Duration::from_secs(3),
    retries: 0,
    pause: PAUSE,
};
const RETRIES: u32 = 2;
const PAUSE: Duration = Duration::from_millis(250);

/// No address and no token is longer.
const SECRET_BYTES_MAX: u64 = 4096;
/// As much of a message as a ping carries.
const PING_CHARS_MAX: usize = 1000;

/// What happened. Written as a document, it is what a webhook gets; `docs/operate.md` describes it.
#[derive(Serialize)]
pub(super) struct News {
    #[serde(serialize_with = "event_name")]
    pub event: Event,
    /// The command.
    pub op: &'static str,
    pub profile: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    pub exit: u8,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figures: Option<FiguresBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Codes of what is wrong, as `status` tells them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<&'static str>,
}

#[derive(Serialize)]
struct Sent<'a> {
    #[serde(flatten)]
    news: &'a News,
    host: String,
    time: String,
    program: &'static str,
}

fn event_name<S: serde::Serializer>(event: &Event, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(event.name())
}

/// Pings that a backup of a profile begins.
pub(super) fn begun(session: &Session, profile: &Profile) {
    ping(session, profile, "start", "", &PING_AT_START);
}

/// Tells how a backup of a profile ended.
pub(super) fn ended(session: &Session, profile: &Profile, news: &News) {
    // The switch that a ping holds up stands for all of the profile.
    if news.scope.is_empty() {
        let suffix = match news.event {
            Event::Success => "",
            Event::Failure | Event::Overdue => "fail",
        };
        let said: String = news.message.chars().take(PING_CHARS_MAX).collect();
        let body = format!("exit {}: {said}\n", news.exit);
        ping(session, profile, suffix, &body, &PING);
    }
    told(session, profile, news);
}

/// Gives the news to who gets documents. Returns false if that failed.
pub(super) fn told(session: &Session, profile: &Profile, news: &News) -> bool {
    let Some(webhook) = &profile.webhook else {
        return true;
    };
    if !webhook.on.contains(&news.event) {
        return true;
    }
    let end = post(session, webhook, news);
    warn_unless(session, profile, "webhook", end)
}

fn ping(session: &Session, profile: &Profile, suffix: &str, body: &str, patience: &Patience) {
    let Some(origin) = &profile.ping else {
        return;
    };
    let end = endpoint(origin).and_then(|endpoint| {
        let message = Message {
            endpoint: &endpoint,
            suffix,
            content_type: "text/plain; charset=utf-8",
            token: None,
            body: body.as_bytes(),
        };
        deliver(session, &message, patience)
    });
    warn_unless(session, profile, "ping", end);
}

fn post(session: &Session, webhook: &Webhook, news: &News) -> Result<(), String> {
    let endpoint = endpoint(&webhook.endpoint)?;
    let token = match &webhook.token {
        None => None,
        Some(origin) => Some(token(origin, webhook)?),
    };
    let name = webhook.header.as_deref().unwrap_or("Authorization");
    let sent = Sent {
        news,
        host: environment::host_name(),
        time: text::rfc3339(session.cx.clock.now()),
        program: concat!("statekeep ", env!("CARGO_PKG_VERSION")),
    };
    let body = json::line(&json::document("notification", sent));
    let message = Message {
        endpoint: &endpoint,
        suffix: "",
        content_type: "application/json",
        token: token.as_ref().map(|token| (name, token)),
        body: body.as_bytes(),
    };
    let patience = Patience {
        timeout: webhook.timeout,
        retries: RETRIES,
        pause: PAUSE,
    };
    deliver(session, &message, &patience)
}

fn deliver(session: &Session, message: &Message<'_>, patience: &Patience) -> Result<(), String> {
    let sent = notify::send(&session.cx, message, patience);
    sent.map_err(|wrong| format!("{}: {}", message.endpoint.shown(), wrong.words()))
}

fn warn_unless(session: &Session, profile: &Profile, what: &str, end: Result<(), String>) -> bool {
    if let Err(why) = &end {
        let message = format!("{what} of profile {}: {why}", profile.name);
        session.reporter.warn("not-notified", b"", &message);
    }
    end.is_ok()
}

fn endpoint(origin: &EndpointOrigin) -> Result<Endpoint, String> {
    match origin {
        EndpointOrigin::Said(endpoint) => Ok(endpoint.clone()),
        EndpointOrigin::File(path) => Endpoint::parse(&first_line(path)?)
            .map_err(|why| format!("the address in {}: {why}", path.display())),
    }
}

/// Returns what stands in the header.
fn token(origin: &TokenOrigin, webhook: &Webhook) -> Result<Zeroizing<String>, String> {
    let token = match origin {
        TokenOrigin::File(path) => first_line(path)?,
        TokenOrigin::Command(command) => {
            // What is printed is a secret, and why there is none is not.
            let asked = hook::ask(&Context::new(), command, webhook.timeout);
            let (end, said) = asked.map_err(|error| error.to_string())?;
            let said = Zeroizing::new(said);
            match end.problem() {
                None => said,
                Some(problem) => {
                    let program = command.first().map_or("", String::as_str);
                    return Err(format!("the token command {program}: {problem}"));
                }
            }
        }
        TokenOrigin::Variable(name) => match environment::variable(name) {
            Some(value) => value,
            None => return Err(format!("there is no token in the variable {name}")),
        },
    };
    if token.is_empty() {
        return Err("the token is empty".to_string());
    }
    Ok(match webhook.header {
        Some(_) => token,
        None => Zeroizing::new(format!("Bearer {}", *token)),
    })
}

fn first_line(path: &Path) -> Result<Zeroizing<String>, String> {
    let read = || {
        let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES_MAX as usize));
        let file = File::open(path)?;
        file.take(SECRET_BYTES_MAX).read_to_string(&mut text)?;
        std::io::Result::Ok(Zeroizing::new(
            text.lines().next().unwrap_or_default().trim().to_string(),
        ))
    };
    let line = read().map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    match line.is_empty() {
        true => Err(format!("{} is empty", path.display())),
        false => Ok(line),
    }
}
