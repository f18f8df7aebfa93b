//! Tells whether a file is still the archive that was made: by the sum beside it, by its own
//! checksums, and by its manifest. Reads only; all that is wrong is told, not the first alone.

use crate::codec::sha256::Sha256Sum;
use crate::context::Context;
use crate::context::Event;
use crate::error::Error;
use crate::error::Result;
use crate::ops::archive::Archive;
use crate::ops::archive::Format;
use crate::ops::archive::bytes::Bytes;
use crate::ops::archive::checksum;
use crate::ops::archive::findings::Findings;
use crate::ops::archive::listing;
use crate::ops::archive::listing::Limits;
use crate::ops::archive::listing::Listing;
use crate::ops::archive::listing::OutsideLinks;

/// What is known of a file without any repository.
#[derive(Debug)]
pub struct Verified {
    /// How it is packed; `None` if it is no archive.
    pub format: Option<Format>,
    /// The sum of the file.
    pub sha256: Sha256Sum,
    /// How long the file is.
    pub file_bytes: u64,
    /// Whether it is encrypted.
    pub is_encrypted: bool,
    /// Whether there is a sum beside it.
    pub has_sum: bool,
    /// What is in it.
    pub listing: Listing,
    /// What is wrong.
    pub findings: Findings,
    /// The sum of what is in a file that is no archive.
    pub plain_sha256: Sha256Sum,
}

impl Verified {
    /// Returns how many files it has.
    pub fn files(&self) -> u64 {
        let files = self.listing.members.iter();
        files.filter(|listed| listed.sha256.is_some()).count() as u64
    }
}

/// Reads a file and compares it with all that lies in it and beside it.
pub fn verify(cx: &Context, bytes: Bytes, limits: &Limits) -> Result<Verified> {
    cx.progress.event(Event::Phase("verify"));
    let mut verified = Verified {
        format: None,
        sha256: bytes.sha256()?,
        file_bytes: bytes.file_bytes,
        is_encrypted: bytes.is_encrypted(),
        has_sum: false,
        listing: Listing::default(),
        findings: Findings::default(),
        plain_sha256: Sha256Sum([0; 32]),
    };
    let path = bytes.path().to_path_buf();
    let beside = match checksum::check_beside(&path, &verified.sha256) {
        Err(Error::Corrupt { reason, .. }) => Some(reason),
        has_sum => {
            verified.has_sum = has_sum?;
            None
        }
    };
    match Archive::of_bytes(bytes)? {
        Ok(archive) => {
            verified.format = Some(archive.format);
            // Nothing is unpacked, so nothing can follow them.
            let limits = Limits {
                outside: OutsideLinks::Kept,
                ..*limits
            };
            let findings = &mut verified.findings;
            verified.listing = listing::list_damaged(cx, &archive, &limits, findings)?;
        }
        Err(bytes) => {
            let sum = Sha256Sum::of_reader(bytes.reader());
            verified.plain_sha256 = sum.map_err(|error| match error.raw_os_error() {
                Some(_) => Error::io("read", &path)(error),
                None => Error::corrupt(path.display().to_string(), error.to_string()),
            })?;
            verified.listing.plain_bytes = bytes.len();
        }
    }
    if let Some(reason) = beside {
        verified.has_sum = true;
        verified.findings.add(b"", reason);
    }
    Ok(verified)
}
