//! Reads and sets the attributes of an open node, in the order that keeps it closed to others.
//!
//! Invariant: I9. At no instant is the node more readable than its final mode: it is narrowed
//! first, then given to its owner, then opened up; setuid and file capabilities come only after
//! the right owner; an ACL comes last and only if it says what the mode says.

use crate::disk::node::Attributes;
use crate::disk::node::Kind;
use crate::disk::node::Problem;
use crate::disk::node::Stat;
use crate::disk::node::Xattrs;
use crate::safeguard::Safeguard;
use rustix::fd::AsRawFd;
use rustix::fd::BorrowedFd;
use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::Gid;
use rustix::fs::Mode;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::fs::UTIME_OMIT;
use rustix::fs::Uid;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";
/// The kernel's limit for the list of names and for one value.
const XATTR_BYTES_MAX: usize = 65_536;
const SPECIAL_BITS: u32 = 0o6000;

/// An open node. One opened with `O_PATH` is reached by its name under `/proc/self/fd`, because
/// most calls refuse such a descriptor; that name leads to the node itself, even a symlink.
pub(crate) struct Handle<'a> {
    fd: BorrowedFd<'a>,
    name: Option<String>,
}

impl<'a> Handle<'a> {
    pub(crate) fn open(fd: BorrowedFd<'a>) -> Handle<'a> {
        Handle { fd, name: None }
    }

    pub(crate) fn path_only(fd: BorrowedFd<'a>) -> Handle<'a> {
        let name = Some(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        Handle { fd, name }
    }

    /// Returns the extended attributes, none if the file system has none.
    pub(crate) fn xattrs(&self) -> Result<Xattrs, Errno> {
        let mut xattrs = Vec::new();
        for name in self.xattr_names()? {
            let value = with_buffer(|buffer| match &self.name {
                None => rustix::fs::fgetxattr(self.fd, &name[..], buffer),
                Some(path) => rustix::fs::getxattr(path, &name[..], buffer),
            });
            match value {
                Ok(value) => xattrs.push((name, value)),
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }

    fn xattr_names(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let list = with_buffer(|buffer| match &self.name {
            None => rustix::fs::flistxattr(self.fd, buffer),
            Some(path) => rustix::fs::listxattr(path, buffer),
        });
        let list = match list {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
            list => list?,
        };
        let names = list.split(|byte| *byte == 0);
        Ok(names
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect())
    }

    fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        match &self.name {
            None => rustix::fs::fsetxattr(self.fd, name, value, XattrFlags::empty()),
            Some(path) => rustix::fs::setxattr(path, name, value, XattrFlags::empty()),
        }
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        match &self.name {
            None => rustix::fs::fremovexattr(self.fd, name),
            Some(path) => rustix::fs::removexattr(path, name),
        }
    }

    pub(crate) fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        match &self.name {
            None => rustix::fs::fchmod(self.fd, mode),
            Some(path) => rustix::fs::chmod(path, mode),
        }
    }

    fn set_mtime(&self, attributes: &Attributes) -> Result<(), Errno> {
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: attributes.mtime.secs,
                // Greater values have meanings of their own ("now", "leave it").
                tv_nsec: attributes.mtime.nanos.min(999_999_999).into(),
            },
        };
        match &self.name {
            None => rustix::fs::futimens(self.fd, &times),
            Some(path) => rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()),
        }
    }

    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        // All ones means "leave it" to the kernel: not an owner that anything can have.
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return Err(Errno::INVAL);
        }
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        rustix::fs::chownat(self.fd, "", uid, gid, AtFlags::EMPTY_PATH)
    }
}

/// Calls with a buffer that nearly always suffices, then with one that always does.
fn with_buffer(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 512];
    match call(&mut small) {
        Err(Errno::RANGE) => {
            let mut large = vec![0; XATTR_BYTES_MAX];
            let len = call(&mut large)?;
            large.truncate(len);
            Ok(large)
        }
        len => Ok(small[..len?].to_vec()),
    }
}

/// Gives the node its attributes; returns what could not be set.
pub(crate) fn apply(
    node: &Handle,
    now: &Stat,
    path: &[u8],
    attributes: &Attributes,
) -> Vec<Problem> {
    let mut setter = Setter {
        node,
        path,
        attributes,
        // What cannot be listed cannot be removed either.
        existing: node.xattr_names().unwrap_or_default(),
        problems: Vec::new(),
    };
    let has_mode = now.kind != Kind::Symlink;
    let mut mode = now.mode;

    // Order: user attributes while we may still write; narrow; only then drop inherited ACLs,
    // whose mask would turn into the permissions of the group; owner; mode; ACL; times.
    if has_mode && mode & 0o200 == 0 && setter.changes_plain_xattrs() {
        // Left so by the umask or its owner; writing is needed and lets nobody read.
        mode |= 0o200;
        setter.check("mode", "set the mode", node.set_mode(mode));
    }
    setter.set_plain_xattrs();
    if has_mode && mode & !attributes.mode != 0 && Safeguard::NarrowFirst.holds() {
        mode &= attributes.mode;
        setter.check("mode", "set the mode", node.set_mode(mode));
    }
    setter.drop_acls();
    let owned = setter.set_owner(now);
    if has_mode {
        let mut wanted = attributes.mode & 0o7777;
        if !owned && wanted & SPECIAL_BITS != 0 {
            wanted &= !SPECIAL_BITS;
            setter.problem("mode", "set-user-id is left out without the owner".into());
        }
        if wanted != mode || wanted & SPECIAL_BITS != 0 {
            setter.check("mode", "set the mode", node.set_mode(wanted));
        }
        setter.set_guarded_xattrs(owned);
    }
    setter.check("mtime", "set the time", node.set_mtime(attributes));
    setter.problems
}

struct Setter<'a> {
    node: &'a Handle<'a>,
    path: &'a [u8],
    attributes: &'a Attributes,
    existing: Vec<Vec<u8>>,
    problems: Vec<Problem>,
}

impl Setter<'_> {
    fn problem(&mut self, code: &'static str, message: String) {
        self.problems.push(Problem::new(self.path, code, message));
    }

    fn check(&mut self, code: &'static str, action: &str, result: Result<(), Errno>) {
        if let Err(errno) = result {
            self.problem(code, format!("cannot {action}: {errno}"));
        }
    }

    fn wants(&self, name: &[u8]) -> bool {
        let mut wanted = self.attributes.xattrs.iter();
        wanted.any(|(wanted, _)| wanted == name)
    }

    fn set_xattr(&mut self, name: &[u8], value: &[u8]) {
        let action = format!("set {}", String::from_utf8_lossy(name));
        let result = self.node.set_xattr(name, value);
        self.check("xattr", &action, result);
    }

    fn changes_plain_xattrs(&self) -> bool {
        let wanted = self.attributes.xattrs.iter();
        let mut names = wanted.map(|(name, _)| name).chain(&self.existing);
        names.any(|name| !is_guarded(name))
    }

    fn set_plain_xattrs(&mut self) {
        for (name, value) in &self.attributes.xattrs {
            if !is_guarded(name) {
                self.set_xattr(name, value);
            }
        }
        for name in &self.existing.clone() {
            if name.starts_with(b"user.") && !self.wants(name) {
                let result = self.node.remove_xattr(name);
                self.check("xattr", "remove a stray attribute", result);
            }
        }
    }

    fn drop_acls(&mut self) {
        for name in &self.existing.clone() {
            if name == ACL_ACCESS || name == ACL_DEFAULT {
                let result = self.node.remove_xattr(name);
                self.check("xattr", "remove an inherited ACL", result);
            }
        }
    }

    /// Sets the owner; returns true if it is the right one now.
    fn set_owner(&mut self, now: &Stat) -> bool {
        let uid = (now.uid != self.attributes.uid).then_some(self.attributes.uid);
        let gid = (now.gid != self.attributes.gid).then_some(self.attributes.gid);
        if uid.is_none() && gid.is_none() {
            return true;
        }
        let result = self.node.set_owner(uid, gid);
        if result.is_err() && gid.is_some() {
            // An ordinary user may still choose among its own groups.
            let _ = self.node.set_owner(None, gid);
        }
        let owner = format!("{}:{}", self.attributes.uid, self.attributes.gid);
        self.check("owner", &format!("give it to {owner}"), result);
        result.is_ok()
    }

    fn set_guarded_xattrs(&mut self, owned: bool) {
        for (name, value) in &self.attributes.xattrs {
            match &name[..] {
                CAPABILITY if !owned => {
                    self.problem("xattr", "capabilities are left out".into());
                }
                ACL_ACCESS if !acl_matches(value, self.attributes.mode) => {
                    let message = "the ACL contradicts the mode and is left out";
                    self.problem("xattr", message.into());
                }
                name if is_guarded(name) => self.set_xattr(name, value),
                _ => {}
            }
        }
    }
}

fn is_guarded(name: &[u8]) -> bool {
    name == ACL_ACCESS || name == ACL_DEFAULT || name == CAPABILITY
}

/// Returns true if the ACL grants owner, mask (or group) and others what the mode says, so that
/// setting it opens nothing. Layout: version 2 as u32, then entries of tag, permissions, id.
fn acl_matches(acl: &[u8], mode: u32) -> bool {
    let Some((version, entries)) = acl.split_at_checked(4) else {
        return false;
    };
    let mut bits = [None; 3];
    let mut masked = false;
    for entry in entries.chunks(8) {
        let [tag, 0, permissions, 0, ..] = *entry else {
            return false;
        };
        match tag {
            0x01 => bits[0] = Some(permissions),
            0x04 if !masked => bits[1] = Some(permissions),
            0x10 => (masked, bits[1]) = (true, Some(permissions)),
            0x20 => bits[2] = Some(permissions),
            _ => {}
        }
    }
    let wanted = [6, 3, 0].map(|shift| u8::try_from(mode >> shift & 7).ok());
    version == [2, 0, 0, 0] && bits == wanted
}
