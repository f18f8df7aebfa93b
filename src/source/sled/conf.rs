//! Recognises the directory of a database by the small file that sled keeps in it.

/// What a `conf` file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conf {
    pub segment_bytes: u64,
    pub is_compressed: bool,
    /// Of sled, whose other versions cannot open it.
    pub version: (u32, u32),
}

impl Conf {
    /// Reads the content of a `conf` file: three lines and a checksum of four bytes.
    pub fn parse(content: &[u8]) -> Option<Conf> {
        let (text, _) = content.split_at_checked(content.len().checked_sub(4)?)?;
        let mut lines = std::str::from_utf8(text).ok()?.lines();
        let segment_bytes = lines.next()?.strip_prefix("segment_size: ")?.parse().ok()?;
        let is_compressed = lines.next()?.strip_prefix("use_compression: ")?;
        let version = lines.next()?.strip_prefix("version: ")?;
        let (major, minor) = version.split_once('.')?;
        let version = (major.parse().ok()?, minor.parse().ok()?);
        Some(Conf {
            segment_bytes,
            is_compressed: is_compressed.parse().ok()?,
            version,
        })
        .filter(|_| lines.next().is_none())
    }
}

/// Returns whether this is the content of the cookie of sled 1.0: its version, a number, zeroes
/// and a checksum of four bytes.
pub fn is_alpha_cookie(content: &[u8]) -> bool {
    content.len() == 64 && content[..2] == [1, 0] && content[10..60].iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conf_is_known_by_its_lines() {
        let text = "segment_size: 524288\nuse_compression: false\nversion: 0.34\n";
        let with = |end: &[u8]| [text.as_bytes(), end].concat();

        let conf = Conf::parse(&with(&[0xff, 1, 2, 3])).unwrap();

        assert_eq!((conf.segment_bytes, conf.version), (524_288, (0, 34)));
        assert!(!conf.is_compressed);
        assert_eq!(Conf::parse(&with(b"more: 1\n1234")), None);
        assert_eq!(
            Conf::parse(b"segment_size: 1\nuse_compression: 3\n1234"),
            None
        );
        assert_eq!(Conf::parse(b""), None);
    }

    #[test]
    fn a_cookie_is_known_by_its_shape() {
        let mut cookie = [0; 64];
        cookie[..3].copy_from_slice(&[1, 0, 4]);
        cookie[60..].copy_from_slice(&[7; 4]);

        assert!(is_alpha_cookie(&cookie));
        assert!(!is_alpha_cookie(&cookie[..60]));
        assert!(!is_alpha_cookie(&[1; 64]));
    }
}
