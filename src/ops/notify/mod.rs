//! Tells others how things went: a ping without words that matter, or a document.
//!
//! A delivery takes bounded time, and what comes of it is told and nothing more: whoever calls
//! goes on as if nothing had been sent. What is said about a failed one holds no part of an
//! address behind its host, and no token (`endpoint`).

mod client;
mod endpoint;

pub use endpoint::Endpoint;

use crate::context::Context;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use zeroize::Zeroizing;

/// What others are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It was done, with nothing to remark.
    Success,
    /// It was not, or with warnings.
    Failure,
    /// What should have happened did not.
    Overdue,
}

impl Event {
    /// All of them.
    pub const ALL: [Event; 3] = [Event::Success, Event::Failure, Event::Overdue];

    /// Returns its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Event::Success => "success",
            Event::Failure => "failure",
            Event::Overdue => "overdue",
        }
    }
}

/// What is sent.
pub struct Message<'a> {
    /// To whom.
    pub endpoint: &'a Endpoint,
    /// At the end of the path.
    pub suffix: &'a str,
    /// What it is.
    pub content_type: &'static str,
    /// Name and value of a header with a secret.
    pub token: Option<(&'a str, &'a Zeroizing<String>)>,
    /// The content.
    pub body: &'a [u8],
}

/// How long it is tried.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For all attempts together.
    pub timeout: Duration,
    /// After the first attempt.
    pub retries: u32,
    /// Before the first retry; before the second twice as long.
    pub pause: Duration,
}

/// Why it is not known that it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undelivered {
    /// There was no whole answer in time.
    Late,
    /// There was no connection, or none that lasted.
    Unreached(String),
    /// The other side cannot prove who it is.
    Untrusted(String),
    /// An address or token that cannot be sent.
    Unsendable,
    /// An answer that is no success.
    Answered(u16),
}

impl Undelivered {
    /// Returns whether another attempt may have another end.
    fn may_pass(&self) -> bool {
        match self {
            Undelivered::Late | Undelivered::Unreached(_) => true,
            Undelivered::Untrusted(_) | Undelivered::Unsendable => false,
            Undelivered::Answered(status) => matches!(status, 408 | 429 | 500..),
        }
    }

    /// Returns it in words, without who was meant.
    pub fn words(&self) -> String {
        match self {
            Undelivered::Late => "it did not answer in time".to_string(),
            Undelivered::Unreached(why) => why.clone(),
            Undelivered::Untrusted(why) => format!("it cannot be trusted: {why}"),
            Undelivered::Unsendable => "the address or the token cannot be sent".to_string(),
            Undelivered::Answered(status @ 300..=399) => {
                format!("it answered {status}: it points elsewhere, and that is not followed")
            }
            Undelivered::Answered(status) => format!("it answered {status}"),
        }
    }
}

/// Sends. Once somebody wants the program to end there are no retries.
pub fn send(cx: &Context, message: &Message<'_>, patience: &Patience) -> Result<(), Undelivered> {
    let began = Instant::now();
    let url = Zeroizing::new(message.endpoint.with_suffix(message.suffix));
    let token = message.token;
    let post = client::Post {
        url: &url,
        is_encrypted: message.endpoint.is_encrypted(),
        content_type: message.content_type,
        header: token.map(|(name, value)| (name, value.as_str())),
        body: message.body,
    };
    let mut attempt = 0;
    loop {
        let left = patience.timeout.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(Undelivered::Late);
        }
        let wrong = match client::post(&post, left) {
            Ok(200..=299) => return Ok(()),
            Ok(status) => Undelivered::Answered(status),
            Err(wrong) => wrong,
        };
        let pause = patience.pause * (1 << attempt);
        let has_time = pause < patience.timeout.saturating_sub(began.elapsed());
        let goes_on = wrong.may_pass() && attempt < patience.retries && has_time;
        if !goes_on || cx.check().is_err() {
            return Err(wrong);
        }
        thread::sleep(pause);
        attempt += 1;
    }
}
