//! Names and times of evidence files: Node's scheme `Heap.<yyyymmdd>.<hhmmss>.<pid>.<tid>.<seq>.…`, its
//! siblings for findings and metadata, and RFC 3339 for what stands inside them.
//!
//! It does not ask the operating system for the time zone: `localtime` and `TZ` read the environment,
//! which the JS thread may be writing at that moment. The JS side passes its offset in.

use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::config::Compress;

/// Seconds that local time is ahead of UTC, as the JS thread last told it.
static LOCAL_OFFSET_SECONDS: AtomicI32 = AtomicI32::new(0);

/// Counts the files of this process. Process-wide, as in Node.
static NEXT_SEQUENCE: AtomicU32 = AtomicU32::new(1);

/// Tells how far local time is ahead of UTC, in seconds (`-60 * new Date().getTimezoneOffset()`), for
/// file names, which carry local time as Node's own do. Until it is told, names carry UTC. Values
/// beyond a day are ignored.
pub fn set_local_offset_seconds(seconds: i32) {
    if seconds.abs() <= 24 * 3600 {
        LOCAL_OFFSET_SECONDS.store(seconds, Ordering::Relaxed);
    }
}

/// Takes the next file number of this process: 1, 2, 3 and so on.
pub(crate) fn next_sequence() -> u32 {
    NEXT_SEQUENCE.fetch_add(1, Ordering::Relaxed)
}

/// Milliseconds since 1970-01-01 UTC. The wall clock may jump; only what must outlive the process uses it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct WallMillis(pub u64);

impl WallMillis {
    /// The present, by the system's clock. A clock before 1970 reads as 1970.
    #[must_use]
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// `2026-11-21T05:22:56.017Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let t = Civil::from_unix_seconds((self.0 / 1000).cast_signed());
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            t.year,
            t.month,
            t.day,
            t.hour,
            t.minute,
            t.second,
            self.0 % 1000
        )
    }

    /// `20261121.052256`, in local time.
    fn file_stamp(self) -> String {
        let offset = i64::from(LOCAL_OFFSET_SECONDS.load(Ordering::Relaxed));
        let t = Civil::from_unix_seconds((self.0 / 1000).cast_signed() + offset);
        format!(
            "{:04}{:02}{:02}.{:02}{:02}{:02}",
            t.year, t.month, t.day, t.hour, t.minute, t.second
        )
    }
}

impl From<SystemTime> for WallMillis {
    fn from(time: SystemTime) -> Self {
        let millis = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        // The year is kept to four digits: a file time of the year 30000 must not spoil the name scheme.
        Self(u64::try_from(millis).unwrap_or(u64::MAX).min(253_402_300_799_000))
    }
}

/// A point in time on the Gregorian calendar.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Civil {
    /// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`: eras of 400
    /// years (146,097 days), years that begin in March so that the leap day is the last of its year.
    fn from_unix_seconds(seconds: i64) -> Self {
        let seconds = seconds.clamp(0, 253_402_300_799);
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        let shifted = days + 719_468; // days since 0000-03-01
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }
}

/// How a snapshot is packed. DESIGN.md, `LEAKGUARD_COMPRESS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// As V8 wrote it.
    #[default]
    None,
    /// gzip, level 1.
    Gzip,
    /// Zstandard, level 1, with its checksum.
    Zstd,
}

impl From<Compress> for Compression {
    fn from(setting: Compress) -> Self {
        match setting {
            Compress::None => Self::None,
            Compress::Gzip => Self::Gzip,
            Compress::Zstd => Self::Zstd,
        }
    }
}

/// What an evidence file is; it decides prefix and ending of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `Heap.….heapsnapshot`, `.heapsnapshot.gz`, `.heapsnapshot.zst`
    Snapshot(Compression),
    /// `Heap.….heapprofile`
    Profile,
    /// `Finding.….json`
    Finding,
    /// `Snapshot.….meta`
    Meta,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Snapshot(Compression::None),
        Self::Snapshot(Compression::Gzip),
        Self::Snapshot(Compression::Zstd),
        Self::Profile,
        Self::Finding,
        Self::Meta,
    ];

    const fn affixes(self) -> (&'static str, &'static str) {
        match self {
            Self::Snapshot(Compression::None) => ("Heap.", ".heapsnapshot"),
            Self::Snapshot(Compression::Gzip) => ("Heap.", ".heapsnapshot.gz"),
            Self::Snapshot(Compression::Zstd) => ("Heap.", ".heapsnapshot.zst"),
            Self::Profile => ("Heap.", ".heapprofile"),
            Self::Finding => ("Finding.", ".json"),
            Self::Meta => ("Snapshot.", ".meta"),
        }
    }
}

/// The name of one evidence file, known to follow the scheme. It never holds a path separator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EvidenceName {
    kind: Kind,
    /// `<yyyymmdd>.<hhmmss>.<pid>.<tid>.<seq>`: shared by a snapshot and its metadata.
    stem: String,
}

impl EvidenceName {
    /// A name of this process at `now`, with the next number. `tid` is Node's thread id (0: main thread).
    #[must_use]
    pub fn next(kind: Kind, now: WallMillis, tid: u64) -> Self {
        let stem =
            format!("{}.{}.{tid}.{:03}", now.file_stamp(), std::process::id(), next_sequence());
        Self { kind, stem }
    }

    /// Recognises a name of the scheme; anything else, however similar, is `None`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Kind::ALL.into_iter().find_map(|kind| {
            let (prefix, suffix) = kind.affixes();
            let stem = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
            is_stem(stem).then(|| Self { kind, stem: stem.to_owned() })
        })
    }

    /// What the file is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// `<yyyymmdd>.<hhmmss>.<pid>.<tid>.<seq>`.
    #[must_use]
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// The process that wrote it; a number in its own pid namespace.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.stem.split('.').nth(2)?.parse().ok()
    }

    /// The same stem with another kind: the metadata that belongs to a snapshot.
    #[must_use]
    pub fn with_kind(&self, kind: Kind) -> Self {
        Self { kind, stem: self.stem.clone() }
    }
}

impl fmt::Display for EvidenceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, suffix) = self.kind.affixes();
        write!(f, "{prefix}{}{suffix}", self.stem)
    }
}

fn is_stem(stem: &str) -> bool {
    let mut parts = stem.split('.');
    let mut digits = |exactly: Option<usize>| {
        parts.next().is_some_and(|p| {
            p.bytes().all(|b| b.is_ascii_digit())
                && exactly.map_or((1..=20).contains(&p.len()), |n| p.len() == n)
        })
    };
    digits(Some(8))
        && digits(Some(6))
        && digits(None)
        && digits(None)
        && digits(None)
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_in_utc() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_795_238_576_017, "2026-11-21T05:22:56.017Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(WallMillis(millis).rfc3339(), text);
        }
    }

    #[test]
    fn a_name_has_the_scheme_of_node_and_parses_back() {
        let name =
            EvidenceName::next(Kind::Snapshot(Compression::None), WallMillis(1_795_238_576_017), 3);
        let text = name.to_string();
        assert!(text.starts_with("Heap.20261121.052256."), "{text}");
        assert!(text.ends_with(".heapsnapshot"), "{text}");
        assert_eq!(text.split('.').nth(4), Some("3"), "{text}");
        assert!(text.split('.').nth(5).is_some_and(|seq| seq.len() >= 3), "{text}");
        assert_eq!(name.pid(), Some(std::process::id()));
        for kind in Kind::ALL {
            let name = name.with_kind(kind);
            assert_eq!(EvidenceName::parse(&name.to_string()), Some(name));
        }
    }

    #[test]
    fn numbers_rise_within_the_process() {
        let now = WallMillis(0);
        let a = EvidenceName::next(Kind::Finding, now, 0);
        let b = EvidenceName::next(Kind::Finding, now, 0);
        assert_ne!(a, b);
    }

    #[test]
    fn similar_names_are_not_ours() {
        for name in [
            "Heap.20261121.052256.1.0.001.heapsnapshot.part",
            "Heap.20261121.052256.1.0.heapsnapshot",
            "Heap.2026112.052256.1.0.001.heapsnapshot",
            "Heap.20261121.052256.1.0.001.1.heapsnapshot",
            "Heap.20261121.052256.a.0.001.heapsnapshot",
            "Heap.20261121.052256..0.001.heapsnapshot",
            "Heap.20261121.052256.1.0.001.json",
            "Heap.heapsnapshot",
            "package.json",
            "",
        ] {
            assert_eq!(EvidenceName::parse(name), None, "{name}");
        }
    }
}
