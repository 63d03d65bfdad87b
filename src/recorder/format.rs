//! The bytes of a run file: header page, layout of the rings, records of 128 bytes. Pure; nothing here opens
//! a file.
//!
//! ```text
//! page 0    magic "LKGDREC1" · format u32 · length u32 · CRC-32 of the text u32 · JSON text
//! then      fine | medium | coarse | readings | events      each a ring of records
//!
//! record    0 sequence u64 · 8 at ms u64 · 16 kind u8 · 20 isolate u32 · 24 payload · 124 CRC-32 of 0..124
//! sample    24 values f32
//! event     24 code i32 · 28 text length u8 · 32 three numbers f64 · 56 text
//! ```
//!
//! All numbers are little-endian. A number that is not finite is an absent one. A slot of zeros was never
//! written; any other slot whose checksum is wrong is torn.

use serde::{Deserialize, Serialize};

use crate::metric::SeriesId;
use crate::sample::{Millis, ProcessSample};

/// Bytes of one record. A power of two that divides the page: no record lies across two pages, so a kill
/// leaves it whole or not written at all; only a crash of the machine can tear it.
pub const RECORD_BYTES: usize = 128;
/// Bytes of the header page.
pub const HEADER_BYTES: usize = 4096;
/// Smallest file: its coarse ring still holds 24 h for one isolate.
pub const MIN_FILE_BYTES: u64 = 1 << 20;
/// Largest file; what reading one back may cost in memory follows from it.
pub const MAX_FILE_BYTES: u64 = 64 << 20;
/// Version of this format; the layout of the rings belongs to it.
pub const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"LKGDREC1";
const PREFIX_BYTES: usize = 20;
const CHECKSUM_AT: usize = RECORD_BYTES - 4;
const PAYLOAD_AT: usize = 24;
const TEXT_AT: usize = 56;
/// Longest text of an event, bytes; longer ones are cut at a character.
pub const MAX_TEXT_BYTES: usize = CHECKSUM_AT - TEXT_AT;
/// Longest name or version in the header, bytes.
const MAX_NAME_BYTES: usize = 96;

/// What a run is: the first page of its file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunHeader {
    /// What runs are keyed by (`LEAKGUARD_APP`).
    pub app: String,
    /// Version of the app.
    pub app_version: String,
    /// `process.version`.
    pub node_version: String,
    /// Version of leakguard.
    pub guard_version: String,
    /// Process id, in the pid namespace of the process: in a container it is the same in every run.
    pub pid: u32,
    /// Thread id of the isolate that started the guard.
    pub tid: u32,
    /// Wall clock at [`Millis`] zero, milliseconds since 1970. The times of all records count from here.
    pub started_unix_ms: u64,
    /// Boot of the machine, where known.
    pub boot_id: Option<String>,
    /// Inode of the memory cgroup: with the boot id, whether two runs shared a container.
    pub cgroup_inode: Option<u64>,
    /// Interval of the samples, ms.
    pub interval_ms: u64,
    /// Memory limit of the cgroup at start, bytes.
    pub cgroup_limit_bytes: Option<u64>,
    /// V8's heap limit at start, bytes.
    pub heap_limit_bytes: Option<u64>,
    /// Size of the whole file, bytes; set by the recorder.
    pub file_bytes: u64,
}

impl RunHeader {
    /// The header with its names cut to what is kept of them.
    pub(super) fn bounded(&self) -> RunHeader {
        let mut bounded = self.clone();
        for name in [
            &mut bounded.app,
            &mut bounded.app_version,
            &mut bounded.node_version,
            &mut bounded.guard_version,
        ] {
            cut(name, MAX_NAME_BYTES);
        }
        if let Some(boot_id) = &mut bounded.boot_id {
            cut(boot_id, MAX_NAME_BYTES);
        }
        bounded
    }

    /// The header page.
    pub(super) fn encode(&self) -> Vec<u8> {
        // Five names of 96 bytes, each at most six times as long when escaped, and 13 keys with numbers
        // fit the page; a struct of strings and numbers always serializes.
        let text = serde_json::to_vec(&self.bounded()).unwrap_or_default();
        let mut page = Vec::with_capacity(HEADER_BYTES);
        page.extend_from_slice(MAGIC);
        page.extend_from_slice(&FORMAT.to_le_bytes());
        page.extend_from_slice(&(text.len() as u32).to_le_bytes());
        page.extend_from_slice(&crc32(&text).to_le_bytes());
        page.extend_from_slice(&text);
        page.resize(HEADER_BYTES, 0);
        page
    }

    /// Reads a header page; `Err` says in words what is wrong with it.
    pub(super) fn decode(page: &[u8]) -> Result<RunHeader, String> {
        if !page.starts_with(MAGIC) {
            return Err("it does not start as a run file does".into());
        }
        let number = |at| array::<4>(page, at).map(u32::from_le_bytes);
        let (Some(format), Some(length), Some(checksum)) = (number(8), number(12), number(16))
        else {
            return Err("its header is cut off".into());
        };
        if format != FORMAT {
            return Err(format!("its format is {format}, this version reads {FORMAT}"));
        }
        let text = page
            .get(PREFIX_BYTES..)
            .and_then(|rest| rest.get(..length as usize))
            .ok_or_else(|| format!("its header is cut off: {length} bytes expected"))?;
        if crc32(text) != checksum {
            return Err("the checksum of its header is wrong".into());
        }
        let header: RunHeader =
            serde_json::from_slice(text).map_err(|error| format!("its header: {error}"))?;
        if !(MIN_FILE_BYTES..=MAX_FILE_BYTES).contains(&header.file_bytes) {
            return Err(format!("its header gives a size of {} bytes", header.file_bytes));
        }
        Ok(header)
    }
}

/// The rings of a file, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// Every sample.
    Fine,
    /// One sample in 10 s.
    Medium,
    /// One sample in 60 s.
    Coarse,
    /// Live-heap readings.
    Readings,
    /// Everything else.
    Events,
}

impl Section {
    pub(super) const ALL: [Section; 5] =
        [Section::Fine, Section::Medium, Section::Coarse, Section::Readings, Section::Events];

    /// Milliseconds that one of its samples stands for, where it is a thinned ring.
    pub(super) const MEDIUM_MS: u64 = 10_000;
    /// The same of the coarse ring.
    pub(super) const COARSE_MS: u64 = 60_000;
}

/// How many records each ring of a file holds.
///
/// The default of 4 MB has 32,736 records:
///
/// | ring | share | records | holds, one isolate at 1 s |
/// |---|---|---|---|
/// | fine | 27.5 % | 9,002 | 2.5 h of every sample |
/// | medium | 26.4 % | 8,642 | 24 h at 10 s |
/// | coarse | 26.4 % | 8,642 | 6 days at 60 s |
/// | readings | 13.2 % | 4,321 | 24 h of a live-heap reading every 20 s |
/// | events | rest | 2,129 | |
///
/// Each worker that reports has samples of its own and shares the rings: with five workers beside the main
/// thread the coarse ring still holds 24 h. A file of 1 MB has a quarter of it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    slots: [u32; 5],
}

impl Layout {
    /// The rings of a file of this size, which lies between [`MIN_FILE_BYTES`] and [`MAX_FILE_BYTES`].
    pub(super) fn of(file_bytes: u64) -> Layout {
        let bounded = file_bytes.clamp(MIN_FILE_BYTES, MAX_FILE_BYTES);
        let all = ((bounded - HEADER_BYTES as u64) / RECORD_BYTES as u64) as u32;
        // In this order the product stays below 2^32: 64 MB are half a million records.
        let share = |permille: u32| all * permille / 1000;
        let samples_and_readings = [share(275), share(264), share(264), share(132)];
        let [fine, medium, coarse, readings] = samples_and_readings;
        let events = all - samples_and_readings.iter().sum::<u32>();
        Layout { slots: [fine, medium, coarse, readings, events] }
    }

    /// Records a ring holds.
    pub(super) fn slots(&self, section: Section) -> u32 {
        self.slots[section as usize]
    }

    /// Where in the file a record of a ring lies, bytes.
    pub(super) fn offset(&self, section: Section, slot: u32) -> u64 {
        let before: u32 = self.slots[..section as usize].iter().sum();
        HEADER_BYTES as u64 + u64::from(before + slot) * RECORD_BYTES as u64
    }
}

/// A figure of a sample. The number is its place in the record and never changes; a new one goes to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Field {
    /// [`SeriesId::LiveHeap`], bytes.
    LiveHeap = 0,
    /// [`SeriesId::ArrayBuffers`], bytes.
    ArrayBuffers = 1,
    /// [`SeriesId::External`], bytes.
    External = 2,
    /// [`SeriesId::Native`], bytes.
    Native = 3,
    /// [`SeriesId::Rss`], bytes.
    Rss = 4,
    /// [`SeriesId::Fds`].
    Fds = 5,
    /// [`SeriesId::Handles`].
    Handles = 6,
    /// [`SeriesId::Timers`].
    Timers = 7,
    /// [`SeriesId::Threads`].
    Threads = 8,
    /// [`SeriesId::Listeners`]: of the emitter and event that has most.
    Listeners = 9,
    /// [`SeriesId::HeapUsed`], bytes.
    HeapUsed = 10,
    /// [`SeriesId::HeapTotal`], bytes.
    HeapTotal = 11,
    /// [`SeriesId::CgroupUsed`], bytes.
    CgroupUsed = 12,
    /// [`SeriesId::LoopUtilization`], 0 to 1.
    LoopUtilization = 13,
    /// Anonymous resident memory, bytes.
    RssAnon = 14,
    /// V8's heap limit, bytes.
    HeapLimit = 15,
    /// Memory limit of the cgroup, bytes.
    CgroupLimit = 16,
    /// Memory left until the OOM killer comes, bytes.
    CgroupHeadroom = 17,
    /// Memory the machine can still give, bytes.
    MemAvailable = 18,
    /// Bytes handed out by malloc.
    MallocUsed = 19,
    /// Bytes malloc holds and has not handed out.
    MallocFree = 20,
    /// PSI `some avg10`, percent.
    MemoryPressure = 21,
    /// CPU time of the process so far, seconds.
    CpuSeconds = 22,
    /// How long the event loop has not answered, ms.
    LoopStalledMs = 23,
}

/// Figures in a record.
pub const FIELDS: usize = 24;

impl Field {
    /// Every field, in the order of the record.
    pub const ALL: [Field; FIELDS] = [
        Field::LiveHeap,
        Field::ArrayBuffers,
        Field::External,
        Field::Native,
        Field::Rss,
        Field::Fds,
        Field::Handles,
        Field::Timers,
        Field::Threads,
        Field::Listeners,
        Field::HeapUsed,
        Field::HeapTotal,
        Field::CgroupUsed,
        Field::LoopUtilization,
        Field::RssAnon,
        Field::HeapLimit,
        Field::CgroupLimit,
        Field::CgroupHeadroom,
        Field::MemAvailable,
        Field::MallocUsed,
        Field::MallocFree,
        Field::MemoryPressure,
        Field::CpuSeconds,
        Field::LoopStalledMs,
    ];

    /// The series this field records, if it is one.
    pub fn series(self) -> Option<SeriesId> {
        crate::metric::METRICS.iter().map(|row| row.id).find(|&id| Field::from(id) == self)
    }
}

impl From<SeriesId> for Field {
    fn from(series: SeriesId) -> Field {
        match series {
            SeriesId::LiveHeap => Field::LiveHeap,
            SeriesId::ArrayBuffers => Field::ArrayBuffers,
            SeriesId::External => Field::External,
            SeriesId::Native => Field::Native,
            SeriesId::Rss => Field::Rss,
            SeriesId::Fds => Field::Fds,
            SeriesId::Handles => Field::Handles,
            SeriesId::Timers => Field::Timers,
            SeriesId::Threads => Field::Threads,
            SeriesId::Listeners => Field::Listeners,
            SeriesId::HeapUsed => Field::HeapUsed,
            SeriesId::HeapTotal => Field::HeapTotal,
            SeriesId::CgroupUsed => Field::CgroupUsed,
            SeriesId::LoopUtilization => Field::LoopUtilization,
        }
    }
}

/// The figures of one sample. Kept as `f32`: seven digits, that is 64 bytes at 1 GB.
#[derive(Clone, Copy, Debug)]
pub struct Values([f32; FIELDS]);

impl Default for Values {
    fn default() -> Self {
        Values([f32::NAN; FIELDS])
    }
}

impl PartialEq for Values {
    /// Two absent figures are equal.
    fn eq(&self, other: &Values) -> bool {
        Field::ALL.iter().all(|&field| self.get(field) == other.get(field))
    }
}

impl Values {
    /// A figure; `None` if it is absent.
    pub fn get(&self, field: Field) -> Option<f64> {
        let value = self.0[field as usize];
        value.is_finite().then_some(f64::from(value))
    }

    /// Sets a figure; `None`, and what is not finite as `f32`, makes it absent.
    pub fn set(&mut self, field: Field, value: Option<f64>) -> &mut Self {
        let value = value.map_or(f32::NAN, |value| value as f32);
        self.0[field as usize] = if value.is_finite() { value } else { f32::NAN };
        self
    }

    /// Sets all figures that the native thread reads.
    pub fn set_process(&mut self, sample: &ProcessSample) -> &mut Self {
        let number = |value: Option<u64>| value.map(|value| value as f64);
        self.set(Field::Rss, number(sample.rss_bytes))
            .set(Field::RssAnon, number(sample.rss_anon_bytes))
            .set(Field::Fds, number(sample.fds))
            .set(Field::Threads, number(sample.threads))
            .set(Field::MallocUsed, number(sample.malloc_used_bytes))
            .set(Field::MallocFree, number(sample.malloc_free_bytes))
            .set(Field::CgroupUsed, number(sample.cgroup_used_bytes))
            .set(Field::CgroupLimit, number(sample.cgroup_limit_bytes))
            .set(Field::CgroupHeadroom, number(sample.cgroup_headroom_bytes))
            .set(Field::MemAvailable, number(sample.mem_available_bytes))
            .set(Field::MemoryPressure, sample.memory_pressure_percent)
            .set(Field::CpuSeconds, sample.cpu_micros.map(|micros| micros as f64 / 1e6))
    }

    /// Takes over what `newer` has and keeps what it lacks.
    pub(super) fn update(&mut self, newer: &Values) {
        for (value, newer) in self.0.iter_mut().zip(newer.0) {
            if newer.is_finite() {
                *value = newer;
            }
        }
    }
}

/// One tick of one isolate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Millis,
    /// Thread id of the isolate; 0 for the main thread, whose samples carry the figures of the process.
    pub isolate: u32,
    /// The figures.
    pub values: Values,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Millis,
    /// Thread id of the isolate; 0 for the main thread and the process.
    pub isolate: u32,
    /// What.
    pub what: What,
}

/// What happened. Texts are cut to 68 bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// The live heap was read after a major GC. Has a ring of its own.
    LiveHeap {
        /// Heap in use, bytes.
        live_bytes: f64,
        /// Bytes of ArrayBuffers.
        array_buffers_bytes: Option<f64>,
        /// External memory, bytes.
        external_bytes: Option<f64>,
    },
    /// A finding was made.
    Finding {
        /// Which series grows.
        field: Option<Field>,
        /// Its last value.
        value: Option<f64>,
        /// Its growth, in its unit per hour.
        per_hour: Option<f64>,
        /// The growth that counts as a leak.
        threshold_per_hour: Option<f64>,
        /// Name of the finding's file.
        file: String,
    },
    /// Something was not done.
    Refused {
        /// What it would have needed.
        needed: Option<f64>,
        /// What there was.
        available: Option<f64>,
        /// Why not.
        reason: String,
    },
    /// A snapshot begins. Without an end after it, the process died in it.
    SnapshotStarted {
        /// Memory it was predicted to need, bytes.
        predicted_bytes: Option<f64>,
        /// Predicted pause, ms.
        predicted_pause_ms: Option<f64>,
        /// How it is taken, or the name of its file.
        mode: String,
    },
    /// A snapshot is done or failed.
    SnapshotEnded {
        /// Whether there is a file.
        ok: bool,
        /// Its size, bytes.
        file_bytes: Option<f64>,
        /// Pause it caused, ms.
        pause_ms: Option<f64>,
        /// Name of the file, or what failed.
        file: String,
    },
    /// The event loop did not answer for this long.
    LoopStalled {
        /// So far, ms.
        for_ms: f64,
    },
    /// The process ends in order: the last record of a run that did not crash.
    Exit {
        /// Exit code, where known.
        code: Option<i32>,
        /// `exit`, `stop`, ...
        reason: String,
    },
    /// A signal arrived. It may or may not end the process.
    Signal {
        /// Its number.
        number: i32,
        /// Its name.
        name: String,
    },
}

/// A record read back.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    Sample(Sample),
    Event(Event),
}

/// What a slot holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Slot {
    /// Never written.
    Empty,
    /// A record and its sequence number.
    Valid(u64, Record),
    /// A whole record of a kind that a later version wrote.
    Unknown,
    /// The checksum is wrong.
    Torn,
}

const SAMPLE: u8 = 1;
const LIVE_HEAP: u8 = 2;
const FINDING: u8 = 3;
const REFUSED: u8 = 4;
const SNAPSHOT_STARTED: u8 = 5;
const SNAPSHOT_ENDED: u8 = 6;
const LOOP_STALLED: u8 = 7;
const EXIT: u8 = 8;
const SIGNAL: u8 = 9;

/// `code` of an absent exit code or field.
const NO_CODE: i32 = i32::MIN;

/// The common form of all events.
struct RawEvent<'a> {
    kind: u8,
    code: i32,
    numbers: [Option<f64>; 3],
    text: &'a str,
}

impl What {
    fn raw(&self) -> RawEvent<'_> {
        match self {
            What::LiveHeap { live_bytes, array_buffers_bytes, external_bytes } => RawEvent {
                kind: LIVE_HEAP,
                code: 0,
                numbers: [Some(*live_bytes), *array_buffers_bytes, *external_bytes],
                text: "",
            },
            What::Finding { field, value, per_hour, threshold_per_hour, file } => RawEvent {
                kind: FINDING,
                code: field.map_or(NO_CODE, |field| field as i32),
                numbers: [*value, *per_hour, *threshold_per_hour],
                text: file,
            },
            What::Refused { needed, available, reason } => RawEvent {
                kind: REFUSED,
                code: 0,
                numbers: [*needed, *available, None],
                text: reason,
            },
            What::SnapshotStarted { predicted_bytes, predicted_pause_ms, mode } => RawEvent {
                kind: SNAPSHOT_STARTED,
                code: 0,
                numbers: [*predicted_bytes, *predicted_pause_ms, None],
                text: mode,
            },
            What::SnapshotEnded { ok, file_bytes, pause_ms, file } => RawEvent {
                kind: SNAPSHOT_ENDED,
                code: i32::from(*ok),
                numbers: [*file_bytes, *pause_ms, None],
                text: file,
            },
            What::LoopStalled { for_ms } => RawEvent {
                kind: LOOP_STALLED,
                code: 0,
                numbers: [Some(*for_ms), None, None],
                text: "",
            },
            What::Exit { code, reason } => RawEvent {
                kind: EXIT,
                code: code.unwrap_or(NO_CODE),
                numbers: [None; 3],
                text: reason,
            },
            What::Signal { number, name } => {
                RawEvent { kind: SIGNAL, code: *number, numbers: [None; 3], text: name }
            }
        }
    }

    fn from_raw(raw: RawEvent<'_>) -> Option<What> {
        let [first, second, third] = raw.numbers;
        let code = (raw.code != NO_CODE).then_some(raw.code);
        let text = raw.text.to_owned();
        Some(match raw.kind {
            LIVE_HEAP => What::LiveHeap {
                live_bytes: first?,
                array_buffers_bytes: second,
                external_bytes: third,
            },
            FINDING => What::Finding {
                field: code.and_then(|code| Field::ALL.get(usize::try_from(code).ok()?).copied()),
                value: first,
                per_hour: second,
                threshold_per_hour: third,
                file: text,
            },
            REFUSED => What::Refused { needed: first, available: second, reason: text },
            SNAPSHOT_STARTED => What::SnapshotStarted {
                predicted_bytes: first,
                predicted_pause_ms: second,
                mode: text,
            },
            SNAPSHOT_ENDED => What::SnapshotEnded {
                ok: raw.code != 0,
                file_bytes: first,
                pause_ms: second,
                file: text,
            },
            LOOP_STALLED => What::LoopStalled { for_ms: first? },
            EXIT => What::Exit { code, reason: text },
            SIGNAL => What::Signal { number: raw.code, name: text },
            _ => return None,
        })
    }
}

/// A sample as the bytes of its record.
pub(super) fn encode_sample(sequence: u64, sample: &Sample) -> [u8; RECORD_BYTES] {
    let mut record = begin(sequence, sample.at, SAMPLE, sample.isolate);
    for (place, value) in record[PAYLOAD_AT..].chunks_exact_mut(4).zip(sample.values.0) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    seal(record)
}

/// An event as the bytes of its record.
pub(super) fn encode_event(sequence: u64, event: &Event) -> [u8; RECORD_BYTES] {
    let raw = event.what.raw();
    let text = cut_at_character(raw.text, MAX_TEXT_BYTES).as_bytes();
    let mut record = begin(sequence, event.at, raw.kind, event.isolate);
    record[24..28].copy_from_slice(&raw.code.to_le_bytes());
    record[28] = text.len() as u8;
    for (place, number) in record[32..TEXT_AT].chunks_exact_mut(8).zip(raw.numbers) {
        place.copy_from_slice(&number.unwrap_or(f64::NAN).to_le_bytes());
    }
    record[TEXT_AT..TEXT_AT + text.len()].copy_from_slice(text);
    seal(record)
}

fn begin(sequence: u64, at: Millis, kind: u8, isolate: u32) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[0..8].copy_from_slice(&sequence.to_le_bytes());
    record[8..16].copy_from_slice(&at.0.to_le_bytes());
    record[16] = kind;
    record[20..24].copy_from_slice(&isolate.to_le_bytes());
    record
}

fn seal(mut record: [u8; RECORD_BYTES]) -> [u8; RECORD_BYTES] {
    let checksum = crc32(&record[..CHECKSUM_AT]);
    record[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    record
}

/// Reads one slot.
pub(super) fn decode(record: &[u8; RECORD_BYTES]) -> Slot {
    if record.iter().all(|&byte| byte == 0) {
        return Slot::Empty;
    }
    let checksum = array(record, CHECKSUM_AT).map(u32::from_le_bytes);
    if checksum != Some(crc32(&record[..CHECKSUM_AT])) {
        return Slot::Torn;
    }
    match decode_sealed(record) {
        Some((sequence, record)) => Slot::Valid(sequence, record),
        None => Slot::Unknown,
    }
}

fn decode_sealed(record: &[u8; RECORD_BYTES]) -> Option<(u64, Record)> {
    let sequence = u64::from_le_bytes(array(record, 0)?);
    let at = Millis(u64::from_le_bytes(array(record, 8)?));
    let kind = record[16];
    let isolate = u32::from_le_bytes(array(record, 20)?);
    if kind == SAMPLE {
        let mut values = Values::default();
        for (place, field) in Field::ALL.into_iter().enumerate() {
            let value = f32::from_le_bytes(array(record, PAYLOAD_AT + place * 4)?);
            values.set(field, Some(f64::from(value)));
        }
        return Some((sequence, Record::Sample(Sample { at, isolate, values })));
    }
    let mut numbers = [None; 3];
    for (place, number) in numbers.iter_mut().enumerate() {
        let value = f64::from_le_bytes(array(record, 32 + place * 8)?);
        *number = value.is_finite().then_some(value);
    }
    let text = record.get(TEXT_AT..CHECKSUM_AT)?.get(..usize::from(record[28]))?;
    let what = What::from_raw(RawEvent {
        kind,
        code: i32::from_le_bytes(array(record, 24)?),
        numbers,
        text: std::str::from_utf8(text).ok()?,
    })?;
    Some((sequence, Record::Event(Event { at, isolate, what })))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// CRC-32 as in zlib (ISO-HDLC, reflected polynomial 0xEDB88320), eight bytes at a step: Kounavis and Berry,
/// "A Systematic Approach to Building High Performance Software-Based CRC Generators", 2005; but by half bytes,
/// since the CRC of a byte is that of its halves, exclusive-ored. A record is written once a second into caches
/// that the app has filled meanwhile: what counts is how many lines of tables have to come from memory. 1 KB of
/// tables instead of 8 KB makes it slower in a hot loop, and faster where it runs.
fn crc32(bytes: &[u8]) -> u32 {
    let of = |zeros: usize, byte: u32| {
        let [low, high] = &HALF_BYTES[zeros];
        low[(byte & 15) as usize] ^ high[(byte >> 4 & 15) as usize]
    };
    let mut crc = u32::MAX;
    let mut steps = bytes.chunks_exact(8);
    for step in &mut steps {
        let first = crc ^ u32::from_le_bytes([step[0], step[1], step[2], step[3]]);
        crc = of(7, first)
            ^ of(6, first >> 8)
            ^ of(5, first >> 16)
            ^ of(4, first >> 24)
            ^ of(3, u32::from(step[4]))
            ^ of(2, u32::from(step[5]))
            ^ of(1, u32::from(step[6]))
            ^ of(0, u32::from(step[7]));
    }
    for &byte in steps.remainder() {
        crc = crc >> 8 ^ of(0, crc ^ u32::from(byte));
    }
    !crc
}

/// `HALF_BYTES[n][0][h]`: the CRC of the byte `h` followed by `n` zero bytes; `[1][h]`: of the byte `h << 4`.
static HALF_BYTES: [[[u32; 16]; 2]; 8] = half_bytes();

const fn half_bytes() -> [[[u32; 16]; 2]; 8] {
    let mut tables = [[[0; 16]; 2]; 8];
    let mut zeros = 0;
    while zeros < 8 {
        let mut half = 0;
        while half < 16 {
            tables[zeros][0][half] = crc_of(half as u32, zeros);
            tables[zeros][1][half] = crc_of((half as u32) << 4, zeros);
            half += 1;
        }
        zeros += 1;
    }
    tables
}

/// Remainder of a byte followed by zero bytes, bit by bit.
const fn crc_of(byte: u32, zeros: usize) -> u32 {
    let mut crc = byte;
    let mut bit = 0;
    while bit < 8 * (zeros + 1) {
        crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        bit += 1;
    }
    crc
}

fn cut(text: &mut String, bytes: usize) {
    text.truncate(cut_at_character(text, bytes).len());
}

fn cut_at_character(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_field_has_its_own_place() {
        for (place, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, place);
        }
        for row in crate::metric::METRICS {
            assert_eq!(Field::from(row.id).series(), Some(row.id));
        }
        assert_eq!(Field::RssAnon.series(), None);
    }

    #[test]
    fn the_rings_fill_the_file_and_keep_their_promises() {
        for file_bytes in [MIN_FILE_BYTES, 4 << 20, (4 << 20) + 4096, MAX_FILE_BYTES] {
            let layout = Layout::of(file_bytes);
            let mut expected = HEADER_BYTES as u64;
            for section in Section::ALL {
                assert_eq!(layout.offset(section, 0), expected, "{section:?}");
                expected += u64::from(layout.slots(section)) * RECORD_BYTES as u64;
            }
            assert_eq!(expected, file_bytes / RECORD_BYTES as u64 * RECORD_BYTES as u64);
        }
        let layout = Layout::of(4 << 20);
        assert_eq!(layout.slots, [9_002, 8_642, 8_642, 4_321, 2_129], "the table in the docs");
        let hours = |section, ms: u64| u64::from(layout.slots(section)) * ms / 3_600_000;
        assert!(hours(Section::Medium, Section::MEDIUM_MS) >= 24);
        assert!(hours(Section::Coarse, Section::COARSE_MS) >= 6 * 24);
        let smallest = u64::from(Layout::of(MIN_FILE_BYTES).slots(Section::Coarse));
        assert!(smallest * Section::COARSE_MS >= 24 * 3_600_000);
    }

    fn header() -> RunHeader {
        RunHeader {
            app: "shop".into(),
            pid: 4711,
            boot_id: Some("e2b3".into()),
            cgroup_inode: Some(u64::MAX),
            file_bytes: 4 << 20,
            ..RunHeader::default()
        }
    }

    #[test]
    fn headers_come_back_and_damaged_ones_are_refused() {
        let page = header().encode();
        assert_eq!(page.len(), HEADER_BYTES);
        assert_eq!(RunHeader::decode(&page), Ok(header()));
        let used = page.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        for at in 0..used {
            let mut damaged = page.clone();
            damaged[at] ^= 0x20;
            assert!(RunHeader::decode(&damaged).is_err(), "byte {at}");
            assert!(RunHeader::decode(&page[..at]).is_err(), "cut at {at}");
        }
        let huge = RunHeader { file_bytes: u64::MAX, ..header() };
        assert!(RunHeader::decode(&huge.encode()).unwrap_err().contains("size"));
    }

    #[test]
    fn the_longest_header_fits_its_page() {
        let worst = "\u{1}".repeat(5000);
        let header = RunHeader {
            app: worst.clone(),
            app_version: worst.clone(),
            node_version: worst.clone(),
            guard_version: worst.clone(),
            pid: u32::MAX,
            tid: u32::MAX,
            started_unix_ms: u64::MAX,
            boot_id: Some(worst),
            cgroup_inode: Some(u64::MAX),
            interval_ms: u64::MAX,
            cgroup_limit_bytes: Some(u64::MAX),
            heap_limit_bytes: Some(u64::MAX),
            file_bytes: MAX_FILE_BYTES,
        };
        let page = header.encode();
        assert_eq!(page.len(), HEADER_BYTES);
        assert_eq!(RunHeader::decode(&page).unwrap().app.len(), MAX_NAME_BYTES);
    }

    fn events() -> Vec<What> {
        vec![
            What::LiveHeap {
                live_bytes: 5e6,
                array_buffers_bytes: None,
                external_bytes: Some(0.0),
            },
            What::Finding {
                field: Some(Field::LiveHeap),
                value: Some(1e9),
                per_hour: Some(1.5e6),
                threshold_per_hour: Some(1e6),
                file: "Finding.20260101.000000.1.0.1.json".into(),
            },
            What::Finding {
                field: None,
                value: None,
                per_hour: None,
                threshold_per_hour: None,
                file: String::new(),
            },
            What::Refused { needed: Some(5.0), available: Some(4.0), reason: "memory".into() },
            What::SnapshotStarted {
                predicted_bytes: Some(1.0),
                predicted_pause_ms: None,
                mode: "fork".into(),
            },
            What::SnapshotEnded {
                ok: true,
                file_bytes: Some(7.0),
                pause_ms: Some(8.0),
                file: "é".into(),
            },
            What::LoopStalled { for_ms: 1200.0 },
            What::Exit { code: None, reason: "stop".into() },
            What::Exit { code: Some(0), reason: "exit".into() },
            What::Signal { number: 15, name: "SIGTERM".into() },
        ]
    }

    #[test]
    fn events_come_back_as_they_were() {
        for what in events() {
            let event = Event { at: Millis(77), isolate: 3, what };
            let slot = decode(&encode_event(9, &event));
            assert_eq!(slot, Slot::Valid(9, Record::Event(event)));
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let what = What::Exit { code: Some(1), reason: "é".repeat(100) };
        let event = Event { at: Millis(1), isolate: 0, what };
        let Slot::Valid(_, Record::Event(back)) = decode(&encode_event(1, &event)) else {
            panic!()
        };
        let reason = "é".repeat(MAX_TEXT_BYTES / 2);
        assert_eq!(back.what, What::Exit { code: Some(1), reason });
    }

    #[test]
    fn absent_figures_stay_absent() {
        let mut values = Values::default();
        values
            .set(Field::Rss, Some(1e9))
            .set(Field::Fds, Some(0.0))
            .set(Field::Timers, Some(f64::INFINITY))
            .set(Field::Native, Some(1e300));
        let sample = Sample { at: Millis(5), isolate: 1, values };
        let slot = decode(&encode_sample(2, &sample));
        assert_eq!(slot, Slot::Valid(2, Record::Sample(sample)));
        assert_eq!(values.get(Field::Rss), Some(1e9));
        assert_eq!(values.get(Field::Fds), Some(0.0));
        assert_eq!(values.get(Field::Timers), None);
        assert_eq!(values.get(Field::Native), None);
    }

    #[test]
    fn an_empty_slot_is_not_a_torn_one() {
        assert_eq!(decode(&[0; RECORD_BYTES]), Slot::Empty);
        let mut one_bit = [0; RECORD_BYTES];
        one_bit[100] = 1;
        assert_eq!(decode(&one_bit), Slot::Torn);
    }

    proptest! {
        #[test]
        fn the_checksum_is_zlibs(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut twin = flate2::Crc::new();
            twin.update(&bytes);
            prop_assert_eq!(crc32(&bytes), twin.sum());
        }

        #[test]
        fn any_bytes_under_a_right_checksum_decode_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), RECORD_BYTES),
            kind in 0u8..12,
        ) {
            let mut record: [u8; RECORD_BYTES] = bytes.try_into().unwrap();
            record[16] = kind;
            let slot = decode(&seal(record));
            prop_assert!(matches!(slot, Slot::Valid(..) | Slot::Unknown));
            if kind == SAMPLE {
                prop_assert!(matches!(slot, Slot::Valid(_, Record::Sample(_))));
            }
        }

        #[test]
        fn one_changed_byte_tears_a_record(at in 0..RECORD_BYTES, bit in 0u8..8) {
            let mut record = encode_sample(1, &Sample::default());
            record[at] ^= 1 << bit;
            prop_assert_eq!(decode(&record), Slot::Torn);
        }

        #[test]
        fn any_header_text_under_a_right_checksum_is_read_or_refused(text in "\\PC{0,200}") {
            let mut page = Vec::from(*MAGIC);
            page.extend(FORMAT.to_le_bytes());
            page.extend((text.len() as u32).to_le_bytes());
            page.extend(crc32(text.as_bytes()).to_le_bytes());
            page.extend(text.as_bytes());
            prop_assert!(RunHeader::decode(&page).is_err());
        }
    }
}
