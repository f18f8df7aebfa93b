//! Safeguards by name, so that tests can take one away and see that something notices.
//!
//! Invariant: without the feature `faults` every safeguard holds: `holds` is a constant, and costs
//! nothing. With it the environment says which do not (`STATEKEEP_FAULT`), and a release build
//! refuses to compile. Which failure each stands against is told by the numbers of the catalogue in
//! `docs/testing.md`, and `tests/faults.rs` knows which test notices (decision 0090).

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!("the feature `faults` takes safeguards away, and is for test builds only");

macro_rules! safeguards {
    ($($(#[$doc:meta])* $name:ident $against:literal)*) => {
        /// Something without which backups would be lost, wrong, or seen by others.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Safeguard {
            $($(#[$doc])* $name,)*
        }

        /// All of them: the name, and what it stands against.
        pub const ALL: &[(Safeguard, &str, &str)] =
            &[$((Safeguard::$name, stringify!($name), $against),)*];
    };
}

safeguards! {
    // Barriers: what is durable before what.

    /// The content of an object is durable before its name can be seen.
    ContentSync "T-42"
    /// A sync that fails is a failure.
    SyncFailureHeeded "T-29"
    /// The name of an object is durable before anybody is told.
    NameSync "T-42"
    /// So is a name that somebody else made.
    TakenNameSync "T-42"
    /// The directories above a new repository are durable.
    ParentSync "T-42"
    /// Its folders are.
    FolderSync "T-42"
    /// What was read of the log is made durable before it is acted on.
    StoreSync "T-42"
    /// The content of a journal is durable before it counts.
    JournalSync "T-74"
    /// So is its name, before anything of the application is replaced.
    JournalNameSync "T-74"
    /// It is gone for good before what it speaks of goes.
    JournalGoneSync "T-74"
    /// What is staged is durable before the first name changes hands.
    StagedSync "T-74"
    /// Logs are gone for good before a database comes that they would be replayed into.
    LogsGoneSync "T-57"
    /// All names have changed hands for good before the journal goes.
    PublishedSync "T-74"
    /// Databases are the old ones again before their logs come back.
    TakenBackSync "T-57"
    /// And the logs have come back before the journal goes.
    TakenBackLogsSync "T-57"
    /// Restored files are durable before the restore says so.
    RestoredSync "T-42"
    /// So are those from an archive.
    UnpackedSync "T-42"
    /// An archive is durable before it gets its name.
    OutputSync "T-42"
    /// And its name before the export says so.
    OutputNameSync "T-42"
    /// Key slots are there before the config that makes them count.
    KeysBeforeConfig "T-19"
    /// The slots of a rotation are there before the old ones go.
    NewKeysFirst "T-41"
    /// Packs are dropped by the log before they are deleted.
    DropBeforeDelete "T-11"

    // The store and its objects.

    /// A put never takes the place of what is there.
    PutNeverReplaces "T-20"
    /// A repository is one place, whatever path leads to it.
    OnePlace "T-21"
    /// A put that failed is a failure.
    PutFailureHeeded "T-28"
    /// Objects are readable by their owner alone.
    ObjectsPrivate "T-71"
    /// An object of one kind does not open as one of another.
    KindBound "T-78"
    /// No nonce is used twice in an object.
    NonceCounts "T-79"
    /// No two objects have one salt, hence one key.
    FreshSalt "T-79"
    /// A segment whose tag is wrong does not open.
    TagChecked "T-32"
    /// The records of a table add up to the pack.
    TableAddsUp "T-32"
    /// Rows of a table are possible.
    RowsPossible "T-41"
    /// A damaged key slot does not keep the others from opening.
    DamagedSlotPassed "T-41"
    /// The last key cannot be removed.
    LastKeyStays "T-41"
    /// A plain repository in the place of an encrypted one is refused.
    PlainRefusesKey "T-78"
    /// A log that is not the one this machine has seen is reported.
    RollbackNoticed "T-32"
    /// The room that is kept for a full disk is given back when it is needed.
    ReserveSpent "T-34"

    // Chunks.

    /// What is encoded is decoded and compared.
    EncodedCompared "T-39"
    /// The encoder does what it should.
    EncoderSound "T-39"
    /// Bytes leave the reader only after their id matched.
    IdChecked "T-32"
    /// The local index holds no packs that the log does not name.
    IndexFollowsLog "T-13"
    /// The local index finds what it holds.
    IndexFinds "T-36"
    /// A record whose base is gone is not leaned on.
    ChainLookedUp "T-31"
    /// The parent is not trusted where something is lost.
    ParentDistrusted "T-31"
    /// A backup that met damage reads everything again.
    DamageRetried "T-31"

    // Sources.

    /// A file that changes while it is read is read again, and told.
    ChangeNoticed "T-46"
    /// A file that could have changed without its times telling is read.
    RacyRead "T-46"
    /// The time of the last change of status counts too.
    ChangeTimeCompared "T-47"
    /// The same rule for databases.
    RacyDatabaseRead "T-46"
    /// A database is unchanged only if its logs are.
    LogsCompared "T-47"
    /// A database is told by its bytes, and never stored as a file by accident.
    DatabaseTold "T-58"
    /// A snapshot that lacks something says so.
    PartialSaid "T-26"
    /// What was asked for by name and is not there is told.
    AbsenceTold "T-44"
    /// Secrets lean on nothing, and nothing on them.
    SecretsApart "T-80"

    // Live databases.

    /// What lies in the write-ahead log is part of the image.
    LogRead "T-58"
    /// A frame of another generation of the log is none.
    FrameSalts "T-57"
    /// The generation is looked at again after frames were read.
    SaltsAgain "T-54"
    /// One state is held while it is read.
    StateHeld "T-62"
    /// The descriptor cannot write, and the last to close copies nothing back.
    NeverCheckpointed "T-53"
    /// A copy counts only if nothing changed meanwhile.
    CopyUnchanged "T-46"
    /// A copy is readable by its owner alone.
    CopyPrivate "T-63"
    /// A journal of several files counts only while its super-journal is there.
    SuperJournalRead "T-62"
    /// A log of an empty database is left alone.
    OrphanedLogLeft "T-59"
    /// Something that is no file is not opened as a log.
    LogIsFile "T-62"
    /// The captured bytes are checked, not the source.
    CaptureChecked "T-58"
    /// A page of redb counts only if it matches its checksum.
    PageChecked "T-60"
    /// The roots of savepoints are roots.
    SavepointsRead "T-60"
    /// What was spooled is compared as a whole.
    SpoolProved "T-60"

    // Removing.

    /// A prune stops at what it cannot read.
    MarkComplete "T-09"
    /// Packs whose table cannot be read stay.
    UnreadableStays "T-49"
    /// Bases of what is kept are kept.
    BasesKept "T-01"
    /// A prune proves that what stays can be read before anything goes.
    ProvedFirst "T-01"
    /// What was rewritten is read back before the original goes.
    RewriteReadBack "T-30"
    /// Only what the log dropped is deleted.
    SweepOnlyDropped "T-12"
    /// A pack is gone only if it was asked for by name.
    GoneAskedFor "T-10"
    /// What no entry names may belong to a running backup for a while.
    OrphansOld "T-06"
    /// A plan that is made again removes nothing that nobody agreed to.
    AgreedOnly "T-05"
    /// What somebody holds stays.
    HeldStays "T-25"
    /// What is dated in the future stays.
    FutureStays "T-23"
    /// So does what is dated before its parent.
    BackdatedStays "T-23"
    /// Days are those of the zone.
    ZoneDays "T-23"
    /// The newest complete snapshot stays.
    NewestStays "T-45"
    /// A partial snapshot takes the place of no complete one.
    PartialCountsNot "T-45"
    /// The last one that was proved stays.
    ProvenStays "T-45"
    /// Copies made before a restore stay for a while.
    SafetyStays "T-74"
    /// A policy that keeps nothing of a series is a typo.
    TypoRefused "T-25"

    // Restoring.

    /// No path is resolved through a symlink or out of the root.
    LinksRefused "T-69"
    /// Nor is one with `..`.
    PathsChecked "T-65"
    /// A file is readable by its owner alone until it has its mode.
    NewFilesPrivate "T-71"
    /// Rights are taken before they are given.
    NarrowFirst "T-71"
    /// A log of the database before does not stay beside the restored one.
    StaleLogsGo "T-57"
    /// A file that was not restored is told.
    FailureTold "T-77"
    /// A hole at the end is part of a file.
    EndHoleKept "T-37"
    /// Nothing is replaced in place while somebody uses it.
    UseRefused "T-57"
    /// What is replaced in place was saved before.
    SafetyTaken "T-74"
    /// And is still what was saved.
    SavedCompared "T-74"
    /// A database is sound before it is put in place.
    StagedChecked "T-55"
    /// What was replaced can be taken back.
    ReplacedKept "T-74"

    // Archives.

    /// An archive with an absolute path, or one that leads upward, is refused.
    PlainPaths "T-65"
    /// So is one with something below what is no directory.
    BelowDirectories "T-64"
    /// Or with one path twice.
    PathsOnce "T-67"
    /// Or with a device.
    DevicesRefused "T-64"
    /// Or with a hard link to what is not in it.
    HardLinksInside "T-64"
    /// Or with a symlink that leads out of it.
    SymlinksInside "T-68"
    /// Or with more members than its length allows.
    MembersBounded "T-73"
    /// Or that unpacks to far more than its length.
    BytesBounded "T-73"
    /// Its manifest must be true.
    ManifestTrue "T-72"
    /// And the sum beside it.
    SumTrue "T-72"
    /// The length in an extended header counts.
    ExtendedSize "T-66"
    /// An extended header says nothing twice.
    ExtendedOnce "T-66"
    /// Global headers that change members are refused.
    GlobalHeadersRefused "T-66"
    /// Nothing lies behind the end of a tar.
    TarEnds "T-66"
    /// Both headers of a zip member say the same.
    ZipHeadersAgree "T-67"
    /// Members of a zip lie beside each other.
    ZipMembersApart "T-67"
    /// An archive that may hold secrets is readable by its owner alone.
    OutputPrivate "T-71"
    /// An archive takes the place of nothing unless that was asked for.
    OutputReplacesNothing "T-74"
}

impl Safeguard {
    /// Returns false if a test took it away.
    #[cfg(not(feature = "faults"))]
    #[inline(always)]
    pub const fn holds(self) -> bool {
        true
    }

    /// Returns false if a test took it away.
    #[cfg(feature = "faults")]
    pub fn holds(self) -> bool {
        !taken_away().contains(&self)
    }

    /// Returns a mode for the owner alone, or one for everybody if it does not hold.
    pub fn mode(self, private: u32) -> u32 {
        match self.holds() {
            true => private,
            false => private | private >> 3 | private >> 6,
        }
    }

    /// Flips a bit in the middle, unless it holds.
    pub fn spoil(self, bytes: &mut [u8]) {
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle).filter(|_| !self.holds()) {
            *byte ^= 1;
        }
    }
}

/// Returns what the environment of the process takes away. A name that means nothing ends the
/// process: a test would otherwise seem to have noticed nothing.
#[cfg(feature = "faults")]
fn taken_away() -> &'static [Safeguard] {
    static TAKEN_AWAY: std::sync::OnceLock<Vec<Safeguard>> = std::sync::OnceLock::new();
    TAKEN_AWAY.get_or_init(|| {
        let names = std::env::var("STATEKEEP_FAULT").unwrap_or_default();
        let named = names.split(',').filter(|name| !name.is_empty());
        let safeguard = |name: &str| {
            let found = ALL.iter().find(|(_, known, _)| *known == name);
            let (safeguard, _, _) =
                found.unwrap_or_else(|| panic!("no safeguard is called {name}"));
            *safeguard
        };
        named.map(safeguard).collect()
    })
}

#[cfg(all(test, feature = "faults"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_holds() {
        let named = std::env::var("STATEKEEP_FAULT").unwrap_or_default();
        for (safeguard, name, _) in ALL {
            assert_eq!(safeguard.holds(), !named.split(',').any(|one| one == *name));
        }
    }
}
