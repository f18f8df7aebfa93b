//! A web address that somebody is told at. What stands behind the host opens doors: a path of a
//! ping or of a webhook is as good as a password, so nothing here ever shows it.

use std::fmt;

/// Addresses are never longer.
const CHARS_MAX: usize = 2048;

/// An address with `http` or `https`.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    text: String,
    /// Where the path begins.
    path_at: usize,
}

impl Endpoint {
    /// Reads an address. The error says why it is none, without any part of it.
    pub fn parse(text: &str) -> Result<Endpoint, &'static str> {
        let scheme = match text {
            text if text.starts_with("https://") => "https://",
            text if text.starts_with("http://") => "http://",
            _ => return Err("it does not begin with https:// or http://"),
        };
        let rest = &text[scheme.len()..];
        let host_len = rest.find(['/', '?']).unwrap_or(rest.len());
        let authority = &rest[..host_len];
        if text.len() > CHARS_MAX {
            return Err("it is longer than 2048 characters");
        }
        if !text.chars().all(|c| c.is_ascii_graphic()) || text.contains(['#', '\\', '"', '<', '>'])
        {
            return Err("it holds characters that no address has");
        }
        if authority.contains('@') {
            return Err("a name or password does not stand in an address; a token may be given");
        }
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, port)| {
                match port.parse::<u16>() {
                    Ok(1..) => host,
                    // The colons of an IPv6 address are within brackets.
                    _ if port.ends_with(']') => authority,
                    _ => "",
                }
            });
        if host.is_empty() {
            return Err("it names no host, or a port that is none");
        }
        Ok(Endpoint {
            text: text.to_string(),
            path_at: scheme.len() + host_len,
        })
    }

    /// Returns what may be shown: scheme and host.
    pub fn shown(&self) -> &str {
        &self.text[..self.path_at]
    }

    /// Returns whether others on the way can read what is sent.
    pub fn is_readable_on_the_way(&self) -> bool {
        let host = self.shown().strip_prefix("http://");
        host.is_some_and(|host| {
            let local = ["localhost", "127.0.0.1", "[::1]"];
            let mut local = local.iter();
            !local.any(|name| host.strip_prefix(name).is_some_and(is_port))
        })
    }

    /// Returns all of it, with this at the end of its path.
    pub(super) fn with_suffix(&self, suffix: &str) -> String {
        let (path, query) = match self.text.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None => (&*self.text, String::new()),
        };
        match suffix {
            "" => self.text.clone(),
            suffix => format!("{}/{suffix}{query}", path.trim_end_matches('/')),
        }
    }

    /// Returns whether it is reached through TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        self.text.starts_with("https://")
    }
}

fn is_port(end: &str) -> bool {
    end.is_empty() || end.starts_with(':')
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_no_more_than_its_host() {
        for (text, shown) in [
            ("https://hc.example/c4n4ry", "https://hc.example"),
            (
                "http://127.0.0.1:8000/c4n4ry/x?y=c4n4ry",
                "http://127.0.0.1:8000",
            ),
            ("https://[::1]:8443?c4n4ry", "https://[::1]:8443"),
            ("https://[::1]/c4n4ry", "https://[::1]"),
            ("https://hc.example", "https://hc.example"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();

            assert_eq!(endpoint.shown(), shown);
            assert!(!format!("{endpoint:?}").contains("c4n4ry"));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_being_repeated() {
        for text in [
            "",
            "hc.example/c4n4ry",
            "ftp://hc.example/c4n4ry",
            "https://",
            "https:///c4n4ry",
            "https://ada:c4n4ry@hc.example/",
            "https://hc.example:c4n4ry/",
            "https://hc.example:0/c4n4ry",
            "https://:80/c4n4ry",
            "https://hc.example/c4n4ry x",
            "https://hc.example/c4n4ry\r\nX: y",
            "https://hc.example/ü",
            &format!("https://hc.example/{}", "c4n4ry".repeat(400)),
        ] {
            let why = Endpoint::parse(text).unwrap_err();

            assert!(!why.contains("c4n4ry"), "{text}: {why}");
        }
    }

    #[test]
    fn a_suffix_stands_at_the_end_of_the_path() {
        let with = |text: &str, suffix| Endpoint::parse(text).unwrap().with_suffix(suffix);

        assert_eq!(with("https://h/u", ""), "https://h/u");
        assert_eq!(with("https://h/u/", "fail"), "https://h/u/fail");
        assert_eq!(
            with("https://h/u?create=1", "start"),
            "https://h/u/start?create=1"
        );
        assert_eq!(with("https://h", "start"), "https://h/start");
    }

    #[test]
    fn what_stays_on_the_machine_is_not_readable_on_the_way() {
        let is_readable = |text| Endpoint::parse(text).unwrap().is_readable_on_the_way();

        assert!(is_readable("http://hc.example/x") && is_readable("http://localhost.evil/x"));
        assert!(!is_readable("http://localhost:80/x") && !is_readable("http://[::1]/x"));
        assert!(!is_readable("https://hc.example/x"));
    }
}
