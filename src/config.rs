//! Settings: what was given (`Given`), the one table of what exists (`OPTIONS`), and what is meant
//! (`Config`). It parses and checks; it reads no environment and prints nothing: problems are returned.
//!
//! The README table, the types and the CLI help are made from `OPTIONS`.

use std::fmt;
use std::path::PathBuf;

use crate::heap::redact::Redaction;
use sha2::{Digest, Sha256};

/// Milliseconds in one hour: growth rates are kept per hour.
pub const HOUR_MS: f64 = 3_600_000.0;

/// Below this amount (growth rate x window, bytes) healthy apps look like leaking ones: flat apps gain
/// 0.1 to 0.6 MB in their first minutes by feedback vectors and lazily compiled code.
pub const NOISE_FLOOR_BYTES: f64 = 512.0 * 1024.0;

/// Shortest token of the status page. 16 characters of base64 are 96 bits: nobody guesses them over HTTP, however
/// many requests they make, so that attempts need not be counted. Fewer would be words.
pub const MIN_TOKEN_CHARS: usize = 16;

/// A longer one meets the header limits of servers and proxies.
const MAX_TOKEN_CHARS: usize = 1024;

/// Where a setting's value came from, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The table's default.
    Default,
    /// A `LEAKGUARD_*` environment variable.
    Environment,
    /// `start(options)`.
    Option,
}

impl Origin {
    /// The word shown in `status()`.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Default => "default",
            Origin::Environment => "environment",
            Origin::Option => "option",
        }
    }
}

/// One setting as the user gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The name as given: `LEAKGUARD_WINDOW` or `window`.
    pub name: String,
    /// The text as given.
    pub value: String,
    /// Environment or option.
    pub origin: Origin,
}

/// What kind of value an option takes; decides how it is parsed and what the message names as accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `on`/`off`, `1`/`0`, `true`/`false`, `yes`/`no`.
    Switch,
    /// Any text that is not empty.
    Text,
    /// A size per time, `10MB/h`.
    ByteRate,
    /// A number per time, `10/min`.
    CountRate,
    /// A duration within `min..=max` milliseconds.
    Duration(u64, u64),
    /// The same, or `off`.
    DurationOrOff(u64, u64),
    /// A share of one core within `min..=max` percent.
    Percent(f64, f64),
    /// A whole number within `min..=max`.
    Count(u64, u64),
    /// A size of at least so many bytes.
    Size(u64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Several of these words, separated by commas, or `none`.
    Words(&'static [&'static str]),
    /// A signal name, or `off`.
    Signal,
    /// A program and its arguments, or `off`.
    CommandOrOff,
    /// A secret of at least so many visible ASCII characters, which fit into a header as they are, or `off`. It is
    /// parsed into its digest; neither a message nor `Config` ever holds the text.
    SecretOrOff(usize),
}

impl Kind {
    /// What is accepted, for messages and help.
    pub fn accepted(self) -> String {
        match self {
            Kind::Switch => "on or off".into(),
            Kind::Text => "a text".into(),
            Kind::ByteRate => "a growth rate like 10MB/h (B KB MB GB per s min h d)".into(),
            Kind::CountRate => "a rate like 10/min (per s min h d)".into(),
            Kind::Duration(min, max) => {
                format!(
                    "a duration like 30m (ms s m h d), {} to {}",
                    show_millis(min),
                    show_millis(max)
                )
            }
            Kind::DurationOrOff(min, max) => {
                format!(
                    "a duration like 30m (ms s m h d), {} to {}, or off",
                    show_millis(min),
                    show_millis(max)
                )
            }
            Kind::Percent(min, max) => {
                format!("a share of one core like 0.5%, {min}% to {max}%")
            }
            Kind::Count(min, max) => format!("a whole number, {min} to {max}"),
            Kind::Size(min) => format!("a size like 512MB (B KB MB GB), at least {}", Bytes(min)),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Words(words) => {
                format!("none, or some of {} separated by commas", words.join(", "))
            }
            Kind::Signal => "a signal name like SIGUSR2, or off".into(),
            Kind::CommandOrOff => {
                "a program and its arguments separated by blanks, double quotes around blanks, or off".into()
            }
            Kind::SecretOrOff(min) => {
                format!("at least {min} visible ASCII characters without blanks, or off")
            }
        }
    }
}

/// One row of the option table.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The option's name in `start(options)`; the variable's name follows from it.
    pub key: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The default, in the user's notation.
    pub default: &'static str,
    /// One line of help.
    pub help: &'static str,
}

impl OptionSpec {
    /// The environment variable: `LEAKGUARD_GROWTH_RATE` for `growthRate`, `LEAKGUARD` for `enabled`.
    pub fn variable(&self) -> String {
        if self.key == "enabled" {
            return "LEAKGUARD".into();
        }
        let mut name = String::from("LEAKGUARD_");
        for c in self.key.chars() {
            if c.is_ascii_uppercase() {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
        name
    }
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

const fn option(
    key: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> OptionSpec {
    OptionSpec { key, kind, default, help }
}

/// Every setting there is, in the order of the docs.
pub const OPTIONS: &[OptionSpec] = &[
    option(
        "enabled",
        Kind::Switch,
        "on",
        "`off`, `0`, `false`, `no`: loads as an inert object with the same API",
    ),
    option("dir", Kind::Text, "./leakguard", "where evidence goes"),
    option(
        "growthRate",
        Kind::ByteRate,
        "1MB/h",
        "growth of the live heap that counts as a leak. `B KB MB GB` per `s min h d`",
    ),
    option(
        "window",
        Kind::Duration(10 * SECOND, 7 * DAY),
        "6h",
        "over which that rate is to be told from noise; rate x window is the *amount* (6 MB)",
    ),
    option("warmup", Kind::Duration(0, 7 * DAY), "10m", "nothing is judged before"),
    option(
        "confirm",
        Kind::Count(1, 10),
        "2",
        "evaluations that must agree, each with at least half a window of new readings",
    ),
    option("interval", Kind::Duration(100, HOUR), "1s", "process readings"),
    option(
        "gcShare",
        Kind::Percent(0.01, 50.0),
        "0.5%",
        "of one core that live-heap readings may cost, helper threads counted",
    ),
    option(
        "maxGcPause",
        Kind::Duration(1, MINUTE),
        "100ms",
        "longest predicted stop a reading or a profile may cause",
    ),
    option(
        "maxPause",
        Kind::Duration(0, HOUR),
        "10s",
        "longest predicted stop that one snapshot may cause",
    ),
    option(
        "listenerRate",
        Kind::CountRate,
        "10/min",
        "growth of listeners on one emitter or EventTarget, or of one line of code over many",
    ),
    option("handleRate", Kind::CountRate, "10/min", "growth of fds, libuv handles, threads"),
    option(
        "nativeRate",
        Kind::ByteRate,
        "10 x growthRate",
        "growth of external/ArrayBuffer memory and of native memory outside V8",
    ),
    option(
        "snapshot",
        Kind::Choice(&["auto", "inline", "fork", "off"]),
        "auto",
        "`auto` (forked where a self-test passes, else inline) `inline` `fork` `off`",
    ),
    option(
        "followup",
        Kind::DurationOrOff(SECOND, 7 * DAY),
        "30m",
        "a second snapshot this long after the first of a finding, if growth goes on: the pair to compare. `off`",
    ),
    option("baseline", Kind::Switch, "off", "also one at the end of the warm-up"),
    option(
        "maxSnapshots",
        Kind::Count(0, 1000),
        "4",
        "in any 24 h, per directory, counted across restarts and processes",
    ),
    option(
        "maxDisk",
        Kind::Size(1 << 20),
        "512MB",
        "quota of the directory; oldest go first, a baseline and the newest stay",
    ),
    option(
        "cooldown",
        Kind::Duration(0, 30 * DAY),
        "6h",
        "silence after a finding, per series and cause",
    ),
    option("compress", Kind::Choice(&["none", "gzip", "zstd"]), "none", "`none` `gzip` `zstd`"),
    option(
        "redact",
        Kind::Choice(&["none", "strings", "keys"]),
        "none",
        "what snapshots are written without: `none` `strings` (texts) `keys` (property names too)",
    ),
    option(
        "profile",
        Kind::Choice(&["auto", "off"]),
        "auto",
        "sampling allocation profile once a suspicion stands: `auto` `off`",
    ),
    option(
        "analyze",
        Kind::Choice(&["auto", "off"]),
        "auto",
        "analysis of a new snapshot in a separate low-priority process: `auto` `off`",
    ),
    option("listeners", Kind::Switch, "on", "`off`: EventEmitter is left untouched"),
    option(
        "routes",
        Kind::Switch,
        "on",
        "requests are counted by route, to say which route's traffic growth goes with. `off`: nothing is counted",
    ),
    option("signal", Kind::Signal, "off", "a signal name (`SIGUSR2`): snapshot on demand"),
    option(
        "hook",
        Kind::CommandOrOff,
        "off",
        "command run, without a shell, for each new evidence file",
    ),
    option(
        "token",
        Kind::SecretOrOff(MIN_TOKEN_CHARS),
        "off",
        "what the status page asks for; without it the page is 404",
    ),
    option(
        "app",
        Kind::Text,
        "name and version of the nearest package.json",
        "what runs are keyed by",
    ),
    option(
        "log",
        Kind::Choice(&["silent", "warn", "info", "debug"]),
        "warn",
        "`silent` `warn` `info` `debug`: findings and refusals, one line each on stderr",
    ),
    option(
        "without",
        Kind::Words(&["external", "pressure", "epilogue", "gc"]),
        "none",
        "ways of knowing the live heap that are not to be used, for a runtime on which one of them misbehaves",
    ),
];

/// How snapshots are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotMode {
    /// The best way that fits.
    Auto,
    /// In this process, stopping its loop.
    Inline,
    /// In a forked child.
    Fork,
    /// Never.
    Off,
}

/// How much is said on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    Silent,
    /// Findings and refusals.
    Warn,
    /// And snapshots.
    Info,
    /// And every verdict that is not quiet.
    Debug,
}

/// Compression of snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// Plain file.
    None,
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

/// Ways of knowing the live heap that are not to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without {
    /// `napi_adjust_external_memory`.
    pub external: bool,
    /// `MemoryPressureNotification`.
    pub pressure: bool,
    /// The GC epilogue callback.
    pub epilogue: bool,
    /// Forced `gc()`.
    pub gc: bool,
}

/// The settings in force, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// False: an inert object.
    pub enabled: bool,
    /// As given, not resolved.
    pub dir: PathBuf,
    /// Bytes per hour.
    pub growth_rate: f64,
    /// Milliseconds.
    pub window_ms: u64,
    /// Milliseconds.
    pub warmup_ms: u64,
    /// Evaluations that must agree.
    pub confirm: u32,
    /// Milliseconds between ticks.
    pub interval_ms: u64,
    /// Fraction of one core, 0.005 for 0.5 %.
    pub gc_share: f64,
    /// Milliseconds.
    pub max_gc_pause_ms: u64,
    /// Milliseconds.
    pub max_pause_ms: u64,
    /// Listeners per hour.
    pub listener_rate: f64,
    /// Handles per hour.
    pub handle_rate: f64,
    /// Bytes per hour.
    pub native_rate: f64,
    /// How snapshots are taken.
    pub snapshot: SnapshotMode,
    /// Milliseconds, `None` for off.
    pub followup_ms: Option<u64>,
    /// A snapshot at the end of the warm-up.
    pub baseline: bool,
    /// In any 24 h.
    pub max_snapshots: u32,
    /// Bytes.
    pub max_disk_bytes: u64,
    /// Milliseconds.
    pub cooldown_ms: u64,
    /// Of snapshots.
    pub compress: Compress,
    /// What snapshots are written without, while they are written.
    pub redact: Option<Redaction>,
    /// Whether allocations are sampled once a suspicion stands.
    pub profile: bool,
    /// Whether new snapshots are analysed in a process of their own.
    pub analyze: bool,
    /// Whether EventEmitter is wrapped.
    pub listeners: bool,
    /// Whether requests are counted by route.
    pub routes: bool,
    /// Signal name, for the JS thread to listen to.
    pub signal: Option<String>,
    /// Program and arguments of the hook, `None` for off.
    pub hook: Option<Vec<String>>,
    /// SHA-256 of what the status page asks for; `None`: there is no page.
    pub token_sha256: Option<[u8; 32]>,
    /// Name of the app; `None`: from the nearest package.json.
    pub app: Option<String>,
    /// How much is said.
    pub log: LogLevel,
    /// Ways not to be used.
    pub without: Without,
    /// Value in the user's notation and origin of every option, in the table's order.
    pub origins: Vec<(&'static str, String, Origin)>,
}

impl Config {
    /// Growth that must be seen on any rung, bytes: growth rate x window.
    pub fn amount_bytes(&self) -> f64 {
        self.growth_rate * self.window_ms as f64 / HOUR_MS
    }
}

impl Default for Config {
    fn default() -> Self {
        resolve(&[]).0
    }
}

/// Something about the settings the user should know: a process warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `LEAKGUARD_OPTION`, `LEAKGUARD_UNKNOWN`, `LEAKGUARD_LATER`, `LEAKGUARD_SETTINGS`.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
}

/// Makes settings out of what was given: options over environment over defaults. What does not parse, or
/// does not exist, is a problem, and the next best value is used; this never fails.
pub fn resolve(given: &[Given]) -> (Config, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut chosen: Vec<(&'static OptionSpec, Value, String, Origin)> = Vec::new();
    for one in given {
        if !OPTIONS.iter().any(|spec| spec.answers_to(one)) {
            problems.push(unknown(one));
        }
    }
    for spec in OPTIONS {
        let mut best: Option<(Value, String, Origin)> = None;
        for one in given.iter().filter(|one| spec.answers_to(one)) {
            match parse(spec.kind, one.value.trim()) {
                Some(value) => {
                    if best.as_ref().is_none_or(|(_, _, origin)| *origin <= one.origin) {
                        let shown = match value {
                            Value::Digest(_) => "set",
                            _ => one.value.trim(),
                        };
                        best = Some((value, shown.to_owned(), one.origin));
                    }
                }
                None => problems.push(Problem {
                    code: "LEAKGUARD_OPTION",
                    message: format!(
                        "{}: expected {}, got {}; using {}",
                        one.name,
                        spec.kind.accepted(),
                        shown(spec.kind, &one.value),
                        spec.default
                    ),
                }),
            }
        }
        let (value, text, origin) = best.unwrap_or_else(|| {
            (
                parse(spec.kind, spec.default).unwrap_or(Value::Unset),
                spec.default.to_owned(),
                Origin::Default,
            )
        });
        chosen.push((spec, value, text, origin));
    }
    let config = assemble(&chosen);
    problems.extend(consistency(&config));
    (config, problems)
}

impl OptionSpec {
    fn answers_to(&self, given: &Given) -> bool {
        match given.origin {
            Origin::Environment => given.name == self.variable(),
            _ => given.name == self.key,
        }
    }
}

/// What was given, for a message. A secret that was refused may differ by one character from the one that is meant.
fn shown(kind: Kind, text: &str) -> String {
    match kind {
        Kind::SecretOrOff(_) => format!("{} characters", text.trim().chars().count()),
        _ => format!("{:?}", truncate(text)),
    }
}

fn unknown(given: &Given) -> Problem {
    let known: Vec<String> = OPTIONS
        .iter()
        .map(|spec| match given.origin {
            Origin::Environment => spec.variable(),
            _ => spec.key.to_owned(),
        })
        .collect();
    let nearest = known.iter().max_by(|a, b| {
        strsim::jaro_winkler(a, &given.name).total_cmp(&strsim::jaro_winkler(b, &given.name))
    });
    let hint = match nearest {
        Some(name) if strsim::damerau_levenshtein(name, &given.name) <= 6 => {
            format!("; did you mean {name}?")
        }
        _ => String::new(),
    };
    Problem {
        code: "LEAKGUARD_UNKNOWN",
        message: format!("{}: there is no such setting{hint}", truncate(&given.name)),
    }
}

/// Settings that parse and yet cannot work together.
fn consistency(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut say = |message: String| problems.push(Problem { code: "LEAKGUARD_SETTINGS", message });
    let amount = config.amount_bytes();
    if amount < NOISE_FLOOR_BYTES {
        say(format!(
            "LEAKGUARD_GROWTH_RATE x LEAKGUARD_WINDOW is {}, below the {} by which healthy apps grow too: \
             expect false alarms; a window of {} or more fits this rate",
            Bytes(amount as u64),
            Bytes(NOISE_FLOOR_BYTES as u64),
            show_millis((NOISE_FLOOR_BYTES / config.growth_rate * HOUR_MS).ceil() as u64),
        ));
    }
    if config.interval_ms * 8 > config.window_ms {
        say(format!(
            "LEAKGUARD_INTERVAL of {} leaves fewer than 8 readings in the LEAKGUARD_WINDOW of {}: nothing can be judged over it",
            show_millis(config.interval_ms),
            show_millis(config.window_ms)
        ));
    }
    problems
}

/// A parsed value; the kind of its option says which one it is.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Flag(bool),
    Text(String),
    Number(f64),
    Digest([u8; 32]),
    Off,
    Unset,
}

impl Value {
    fn number(&self) -> f64 {
        if let Value::Number(number) = self { *number } else { 0.0 }
    }
    fn millis(&self) -> u64 {
        self.number() as u64
    }
    fn flag(&self) -> bool {
        matches!(self, Value::Flag(true))
    }
    fn text(&self) -> &str {
        if let Value::Text(text) = self { text } else { "" }
    }
    fn optional_text(&self) -> Option<String> {
        if let Value::Text(text) = self { Some(text.clone()) } else { None }
    }
}

fn parse(kind: Kind, text: &str) -> Option<Value> {
    let within = |number: f64, min: u64, max: u64| {
        (number >= min as f64 && number <= max as f64).then_some(Value::Number(number))
    };
    let is_off = matches!(text.to_ascii_lowercase().as_str(), "off" | "0" | "false" | "no");
    match kind {
        Kind::Switch => match text.to_ascii_lowercase().as_str() {
            "on" | "1" | "true" | "yes" => Some(Value::Flag(true)),
            _ if is_off => Some(Value::Flag(false)),
            _ => None,
        },
        Kind::Text => (!text.is_empty()).then(|| Value::Text(text.to_owned())),
        Kind::ByteRate => byte_rate(text).map(Value::Number),
        Kind::CountRate => count_rate(text).map(Value::Number),
        Kind::Duration(min, max) => duration_ms(text).and_then(|ms| within(ms, min, max)),
        Kind::DurationOrOff(_, _) if is_off => Some(Value::Off),
        Kind::DurationOrOff(min, max) => duration_ms(text).and_then(|ms| within(ms, min, max)),
        Kind::Percent(min, max) => {
            let percent: f64 = number(text.strip_suffix('%')?.trim())?;
            (percent >= min && percent <= max).then_some(Value::Number(percent / 100.0))
        }
        Kind::Count(min, max) => {
            if !text.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            within(text.parse().ok()?, min, max)
        }
        Kind::Size(min) => {
            let bytes = size_bytes(text)?;
            (bytes >= min as f64).then_some(Value::Number(bytes))
        }
        Kind::Choice(words) => {
            let lower = text.to_ascii_lowercase();
            if words.contains(&lower.as_str()) {
                return Some(Value::Text(lower));
            }
            // `0`, `false` and `no` mean off wherever off is a choice.
            (is_off && words.contains(&"off")).then(|| Value::Text("off".into()))
        }
        Kind::Words(words) => {
            if text.eq_ignore_ascii_case("none") {
                return Some(Value::Off);
            }
            let list: Vec<String> =
                text.split(',').map(|word| word.trim().to_ascii_lowercase()).collect();
            list.iter()
                .all(|word| words.contains(&word.as_str()))
                .then(|| Value::Text(list.join(",")))
        }
        Kind::Signal => {
            if is_off {
                return Some(Value::Off);
            }
            let name = text.to_ascii_uppercase();
            let plausible = name.len() > 3
                && name.starts_with("SIG")
                && name.bytes().all(|b| b.is_ascii_alphanumeric());
            // These cannot be listened to, or mean something else to Node.
            let refused =
                ["SIGKILL", "SIGSTOP", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGPROF"];
            (plausible && !refused.contains(&name.as_str())).then_some(Value::Text(name))
        }
        Kind::CommandOrOff if is_off => Some(Value::Off),
        Kind::SecretOrOff(_) if is_off => Some(Value::Off),
        Kind::SecretOrOff(min) => {
            let fits = (min..=MAX_TOKEN_CHARS).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_graphic());
            fits.then(|| Value::Digest(Sha256::digest(text.as_bytes()).into()))
        }
        Kind::CommandOrOff => crate::hook::split(text).ok().map(|_| Value::Text(text.to_owned())),
    }
}

fn assemble(chosen: &[(&'static OptionSpec, Value, String, Origin)]) -> Config {
    let value = |key: &str| {
        chosen
            .iter()
            .find(|(spec, ..)| spec.key == key)
            .map_or(Value::Unset, |(_, value, ..)| value.clone())
    };
    let given = |key: &str| {
        chosen.iter().any(|(spec, _, _, origin)| spec.key == key && *origin != Origin::Default)
    };
    let growth_rate = value("growthRate").number();
    let without = value("without").text().to_owned();
    let without = |word: &str| without.split(',').any(|one| one == word);
    Config {
        enabled: value("enabled").flag(),
        dir: PathBuf::from(value("dir").text()),
        growth_rate,
        window_ms: value("window").millis(),
        warmup_ms: value("warmup").millis(),
        confirm: value("confirm").number() as u32,
        interval_ms: value("interval").millis(),
        gc_share: value("gcShare").number(),
        max_gc_pause_ms: value("maxGcPause").millis(),
        max_pause_ms: value("maxPause").millis(),
        listener_rate: value("listenerRate").number(),
        handle_rate: value("handleRate").number(),
        native_rate: match value("nativeRate") {
            Value::Number(rate) if given("nativeRate") => rate,
            _ => 10.0 * growth_rate,
        },
        snapshot: match value("snapshot").text() {
            "inline" => SnapshotMode::Inline,
            "fork" => SnapshotMode::Fork,
            "off" => SnapshotMode::Off,
            _ => SnapshotMode::Auto,
        },
        followup_ms: match value("followup") {
            Value::Number(ms) => Some(ms as u64),
            _ => None,
        },
        baseline: value("baseline").flag(),
        max_snapshots: value("maxSnapshots").number() as u32,
        max_disk_bytes: value("maxDisk").number() as u64,
        cooldown_ms: value("cooldown").millis(),
        compress: match value("compress").text() {
            "gzip" => Compress::Gzip,
            "zstd" => Compress::Zstd,
            _ => Compress::None,
        },
        profile: value("profile").text() != "off",
        analyze: value("analyze").text() != "off",
        redact: match value("redact").text() {
            "strings" => Some(Redaction::Strings),
            "keys" => Some(Redaction::Keys),
            _ => None,
        },
        listeners: value("listeners").flag(),
        routes: value("routes").flag(),
        signal: value("signal").optional_text(),
        hook: value("hook").optional_text().and_then(|command| crate::hook::split(&command).ok()),
        token_sha256: match value("token") {
            Value::Digest(digest) => Some(digest),
            _ => None,
        },
        app: if given("app") { value("app").optional_text() } else { None },
        log: match value("log").text() {
            "silent" => LogLevel::Silent,
            "info" => LogLevel::Info,
            "debug" => LogLevel::Debug,
            _ => LogLevel::Warn,
        },
        without: Without {
            external: without("external"),
            pressure: without("pressure"),
            epilogue: without("epilogue"),
            gc: without("gc"),
        },
        origins: chosen
            .iter()
            .map(|(spec, _, text, origin)| (spec.key, text.clone(), *origin))
            .collect(),
    }
}

fn number(text: &str) -> Option<f64> {
    // `f64::from_str` also takes "inf", "nan" and "1e9", which nobody means in a setting.
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (digits, unit) = text.split_at_checked(at)?;
    Some((number(digits)?, unit.trim()))
}

fn duration_ms(text: &str) -> Option<f64> {
    let (number, unit) = split_unit(text)?;
    let unit = match unit.to_ascii_lowercase().as_str() {
        "ms" => 1,
        "s" => SECOND,
        "m" | "min" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        _ => return None,
    };
    Some((number * unit as f64).round())
}

fn size_bytes(text: &str) -> Option<f64> {
    let (number, unit) = split_unit(text)?;
    let shift = match unit.to_ascii_uppercase().as_str() {
        "B" => 0,
        "KB" | "KIB" => 10,
        "MB" | "MIB" => 20,
        "GB" | "GIB" => 30,
        _ => return None,
    };
    Some((number * (1u64 << shift) as f64).round())
}

/// A size in the notation of the settings, bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    size_bytes(text.trim()).map(|bytes| bytes as u64)
}

fn per_hour(unit: &str) -> Option<f64> {
    Some(match unit.trim().to_ascii_lowercase().as_str() {
        "s" => 3600.0,
        "min" | "m" => 60.0,
        "h" => 1.0,
        "d" => 1.0 / 24.0,
        _ => return None,
    })
}

/// Bytes per hour; zero is no rate.
fn byte_rate(text: &str) -> Option<f64> {
    let (size, per) = text.split_once('/')?;
    let rate = size_bytes(size.trim())? * per_hour(per)?;
    (rate > 0.0).then_some(rate)
}

/// Things per hour; zero is no rate.
fn count_rate(text: &str) -> Option<f64> {
    let (count, per) = text.split_once('/')?;
    let rate = number(count.trim())? * per_hour(per)?;
    (rate > 0.0).then_some(rate)
}

fn truncate(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Bytes as a person reads them: `412.0 MB`, powers of 1024 like the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        for (unit, size) in [("GB", 30), ("MB", 20), ("KB", 10)] {
            let size = (1u64 << size) as f64;
            if bytes >= size {
                let shown = bytes / size;
                return if shown >= 100.0 {
                    write!(f, "{shown:.0} {unit}")
                } else {
                    write!(f, "{shown:.1} {unit}")
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// A duration in the notation of the settings, in the largest unit that loses nothing: `90m`, `6h`.
pub fn show_millis(ms: u64) -> String {
    for (unit, size) in [("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)] {
        if ms >= size && ms.is_multiple_of(size) {
            return format!("{}{unit}", ms / size);
        }
    }
    format!("{ms}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str, value: &str) -> Given {
        Given { name: name.into(), value: value.into(), origin: Origin::Environment }
    }

    #[test]
    fn defaults_are_those_of_the_table_and_raise_no_problem() {
        let (config, problems) = resolve(&[]);
        assert_eq!(problems, []);
        assert!(config.enabled && config.listeners && !config.baseline);
        assert_eq!(config.growth_rate, 1_048_576.0);
        assert_eq!(config.native_rate, 10_485_760.0);
        assert_eq!(
            (config.window_ms, config.warmup_ms, config.interval_ms),
            (6 * HOUR, 10 * MINUTE, SECOND)
        );
        assert_eq!(
            (config.gc_share, config.max_gc_pause_ms, config.max_pause_ms),
            (0.005, 100, 10 * SECOND)
        );
        assert_eq!((config.listener_rate, config.handle_rate), (600.0, 600.0));
        assert_eq!((config.followup_ms, config.max_snapshots), (Some(30 * MINUTE), 4));
        assert_eq!((config.max_disk_bytes, config.cooldown_ms), (512 << 20, 6 * HOUR));
        assert_eq!((config.snapshot, config.signal, config.app), (SnapshotMode::Auto, None, None));
    }

    #[test]
    fn every_default_parses_by_its_own_kind_or_is_derived() {
        for spec in OPTIONS {
            let derived = ["nativeRate", "app"].contains(&spec.key);
            assert!(derived || parse(spec.kind, spec.default).is_some(), "{}", spec.key);
        }
    }

    #[test]
    fn values_with_units_are_understood() {
        for (name, text, read) in [
            ("growthRate", "1MB/min", 60.0 * 1_048_576.0),
            ("growthRate", "512kb/s", 3600.0 * 512.0 * 1024.0),
            ("growthRate", "24MB/d", 1_048_576.0),
            ("growthRate", "1.5 GB / h", 1.5 * 1_073_741_824.0),
            ("listenerRate", "10/min", 600.0),
            ("listenerRate", "0.5/s", 1800.0),
        ] {
            let spec = OPTIONS.iter().find(|spec| spec.key == name).unwrap();
            assert_eq!(parse(spec.kind, text), Some(Value::Number(read)), "{text}");
        }
        assert_eq!(duration_ms("90s"), Some(90_000.0));
        assert_eq!(duration_ms("1.5h"), Some(5_400_000.0));
        assert_eq!(size_bytes("2GB"), Some(2_147_483_648.0));
    }

    #[test]
    fn nonsense_in_any_variable_is_named_and_the_default_is_used() {
        let nonsense = [
            "",
            " ",
            "x",
            "-1",
            "NaN",
            "1e99",
            "5",
            "5 parsecs",
            "MB/h",
            "/",
            "1MB/",
            "∞",
            "99999999999999999999d",
        ];
        let defaults = Config::default();
        for spec in OPTIONS {
            for text in nonsense {
                if parse(spec.kind, text.trim()).is_some() {
                    continue;
                }
                let (config, problems) = resolve(&[environment(&spec.variable(), text)]);
                assert_eq!(config, defaults, "{} = {text:?}", spec.key);
                assert_eq!(problems.len(), 1, "{} = {text:?}", spec.key);
                assert!(
                    problems[0].message.starts_with(&format!("{}: expected ", spec.variable()))
                );
                let got = format!("got {}; using", shown(spec.kind, text));
                assert!(problems[0].message.contains(&got), "{}", problems[0].message);
            }
        }
    }

    #[test]
    fn the_message_names_variable_value_and_what_is_accepted() {
        let (_, problems) = resolve(&[environment("LEAKGUARD_WINDOW", "5")]);
        assert_eq!(
            problems[0].message,
            "LEAKGUARD_WINDOW: expected a duration like 30m (ms s m h d), 10s to 7d, got \"5\"; using 6h"
        );
    }

    #[test]
    fn an_unknown_name_gets_the_nearest() {
        let (_, problems) = resolve(&[environment("LEAKGUARD_GROWTHRATE", "1MB/h")]);
        assert_eq!(
            problems[0].message,
            "LEAKGUARD_GROWTHRATE: there is no such setting; did you mean LEAKGUARD_GROWTH_RATE?"
        );
        let (_, problems) =
            resolve(&[Given { name: "windw".into(), value: "1h".into(), origin: Origin::Option }]);
        assert!(problems[0].message.ends_with("did you mean window?"));
        let (_, problems) = resolve(&[environment("LEAKGUARD_ZZZZZZZZZZZZZZZZZZZZZZ", "1")]);
        assert!(problems[0].message.ends_with("no such setting"));
    }

    #[test]
    fn options_go_over_environment_over_defaults_in_either_order() {
        let option = Given { name: "window".into(), value: "2h".into(), origin: Origin::Option };
        let variable = environment("LEAKGUARD_WINDOW", "1h");
        for given in [[option.clone(), variable.clone()], [variable.clone(), option.clone()]] {
            assert_eq!(resolve(&given).0.window_ms, 2 * HOUR);
        }
        let broken = Given { value: "soon".into(), ..option };
        assert_eq!(resolve(&[broken, variable]).0.window_ms, HOUR);
    }

    #[test]
    fn an_amount_below_the_noise_is_said_with_the_window_that_fits() {
        let (_, problems) = resolve(&[environment("LEAKGUARD_WINDOW", "10m")]);
        assert!(
            problems[0].message.contains("a window of 30m or more fits this rate"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_hook_is_a_program_and_its_arguments() {
        let (config, problems) = resolve(&[environment("LEAKGUARD_HOOK", "ship \"a b\" c")]);
        assert_eq!(config.hook.unwrap(), ["ship", "a b", "c"]);
        assert_eq!(problems, []);
        let (config, problems) = resolve(&[environment("LEAKGUARD_HOOK", "ship \"a b")]);
        assert_eq!((config.hook, problems.len()), (None, 1));
        assert_eq!(resolve(&[environment("LEAKGUARD_HOOK", "off")]).0.hook, None);
    }

    #[test]
    fn a_token_is_long_and_visible_and_only_its_digest_is_kept() {
        let (config, problems) = resolve(&[environment("LEAKGUARD_TOKEN", " 0123456789abcdef ")]);
        assert_eq!(problems, []);
        let digest = config.token_sha256.unwrap();
        // printf 0123456789abcdef | sha256sum
        assert_eq!(digest[..4], [0x9f, 0x9f, 0x51, 0x11]);
        for token in
            ["0123456789abcde", "0123456789 abcdef", "0123456789abcdéf", "a\u{7f}0123456789abcdef"]
        {
            let (config, problems) = resolve(&[environment("LEAKGUARD_TOKEN", token)]);
            assert_eq!(config.token_sha256, None, "{token}");
            let message = &problems[0].message;
            assert!(message.contains("at least 16 visible ASCII characters"), "{message}");
            assert!(!message.contains(token), "{message}");
        }
        assert_eq!(resolve(&[environment("LEAKGUARD_TOKEN", "off")]).1, []);
    }

    #[test]
    fn redaction_that_is_asked_for_is_known_of() {
        assert_eq!(Config::default().redact, None);
        for (text, redact) in
            [("none", None), ("strings", Some(Redaction::Strings)), ("keys", Some(Redaction::Keys))]
        {
            let (config, problems) = resolve(&[environment("LEAKGUARD_REDACT", text)]);
            assert_eq!((config.redact, problems.len()), (redact, 0));
        }
    }

    #[test]
    fn bytes_and_durations_are_shown_as_a_person_reads_them() {
        assert_eq!(Bytes(6 << 20).to_string(), "6.0 MB");
        assert_eq!(Bytes(412 << 20).to_string(), "412 MB");
        assert_eq!(Bytes(512).to_string(), "512 B");
        assert_eq!(show_millis(90_000), "90s");
        assert_eq!(show_millis(6 * HOUR), "6h");
    }
}
