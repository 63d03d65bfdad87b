//! Tests of the recorder and of reading back, over real files.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use tempfile::TempDir;

use super::history::read_back_from;
use super::*;

fn options(directory: &TempDir) -> RecorderOptions {
    RecorderOptions {
        directory: directory.path().to_owned(),
        file_bytes: MIN_FILE_BYTES,
        header: RunHeader {
            app: "@acme/shop".into(),
            pid: 7,
            started_unix_ms: 1_000,
            interval_ms: 1_000,
            ..RunHeader::default()
        },
    }
}

fn create(directory: &TempDir) -> Recorder {
    Recorder::create(&options(directory)).unwrap()
}

/// A sample that can be told from all others.
fn sample(at_ms: u64, isolate: u32) -> Sample {
    let mut values = Values::default();
    values.set(Field::Rss, Some(at_ms as f64)).set(Field::Threads, Some(f64::from(isolate)));
    Sample { at: Millis(at_ms), isolate, values }
}

fn exit(at_ms: u64) -> Event {
    let what = What::Exit { code: Some(0), reason: "exit".into() };
    Event { at: Millis(at_ms), isolate: 0, what }
}

fn signal(at_ms: u64) -> Event {
    let what = What::Signal { number: 15, name: "SIGTERM".into() };
    Event { at: Millis(at_ms), isolate: 0, what }
}

fn names(directory: &TempDir) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_recorded_comes_back_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut recorder = create(&directory);
    recorder.append_sample(&sample(1_000, 0)).unwrap();
    recorder.append_event(&signal(1_500)).unwrap();
    recorder.append_sample(&sample(1_000, 3)).unwrap();
    recorder.append_sample(&sample(2_000, 0)).unwrap();
    let what = What::LiveHeap { live_bytes: 5.0, array_buffers_bytes: None, external_bytes: None };
    let reading = Event { at: Millis(1_700), isolate: 3, what };
    recorder.append_event(&reading).unwrap();

    let history = read_back(recorder.path()).unwrap();
    assert_eq!(history.samples, [sample(1_000, 0), sample(1_000, 3), sample(2_000, 0)]);
    assert_eq!(history.events, [signal(1_500)]);
    assert_eq!(history.readings, [reading]);
    assert_eq!(history.last_at(), Some(Millis(2_000)));
    assert!(!history.ended_cleanly(), "it goes on");
    assert_eq!(history.header.app, "@acme/shop");
    assert_eq!(history.header.file_bytes, MIN_FILE_BYTES);
    assert_eq!((history.torn_records, history.unknown_records, history.missing_records), (0, 0, 0));
}

#[test]
fn a_closed_run_ended_in_order_and_takes_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let mut recorder = create(&directory);
    recorder.append_sample(&sample(1_000, 0)).unwrap();
    recorder.close(Millis(1_500), Some(0), "exit").unwrap();
    recorder.append_sample(&sample(2_000, 0)).unwrap();
    recorder.close(Millis(3_000), None, "again").unwrap();
    let history = read_back(recorder.path()).unwrap();
    assert_eq!(history.exit(), Some(&exit(1_500)));
    assert_eq!(history.samples, [sample(1_000, 0)]);
    assert_eq!(history.last_at(), Some(Millis(1_500)));
}

#[test]
fn a_day_and_two_hours_are_kept_at_falling_resolution() {
    let directory = tempfile::tempdir().unwrap();
    let options = RecorderOptions { file_bytes: DEFAULT_FILE_BYTES, ..options(&directory) };
    let mut recorder = Recorder::create(&options).unwrap();
    const END: u64 = 26 * 3600;
    for second in 0..END {
        recorder.append_sample(&sample(second * 1000, 0)).unwrap();
    }
    let history = read_back(recorder.path()).unwrap();
    let at: Vec<u64> = history.samples.iter().map(|sample| sample.at.0 / 1000).collect();
    assert!(at[0] <= 60, "starts at {} s", at[0]);
    assert_eq!(at.last(), Some(&(END - 1)));
    for pair in at.windows(2) {
        let step = pair[1] - pair[0];
        let age = END - pair[1];
        let kept = match age {
            0..=9_000 => 1,
            9_001..=86_400 => 10,
            _ => 60,
        };
        assert!((1..=kept).contains(&step), "{step} s at an age of {age} s");
    }
    for sample in &history.samples {
        assert_eq!(sample.values.get(Field::Rss), Some(f64::from(sample.at.0 as f32)));
    }
}

#[test]
fn the_smallest_file_keeps_a_day() {
    let directory = tempfile::tempdir().unwrap();
    let mut recorder = create(&directory);
    const END_MS: u64 = 30 * 3_600_000;
    for at in (0..END_MS).step_by(5_000) {
        recorder.append_sample(&sample(at, 0)).unwrap();
    }
    let history = read_back(recorder.path()).unwrap();
    assert!(history.samples[0].at.0 <= END_MS - 24 * 3_600_000);
    assert!(history.samples.windows(2).all(|pair| pair[1].at.0 - pair[0].at.0 <= 60_000));
}

#[test]
fn the_main_thread_and_five_workers_keep_a_day() {
    let directory = tempfile::tempdir().unwrap();
    let options = RecorderOptions { file_bytes: DEFAULT_FILE_BYTES, ..options(&directory) };
    let mut recorder = Recorder::create(&options).unwrap();
    const END_MS: u64 = 30 * 3_600_000;
    for at in (0..END_MS).step_by(10_000) {
        for isolate in 0..6 {
            recorder.append_sample(&sample(at, isolate)).unwrap();
        }
    }
    let history = read_back(recorder.path()).unwrap();
    for isolate in 0..6 {
        let first = history.samples.iter().find(|sample| sample.isolate == isolate).unwrap();
        assert!(first.at.0 <= END_MS - 24 * 3_600_000 + 60_000);
    }
}

#[test]
fn a_thinned_sample_has_the_last_reading_of_each_figure() {
    let mut gathered = sample(20_000, 0);
    gathered.values.set(Field::LiveHeap, Some(5.0));
    assert_eq!(thin(&mut gathered, &sample(25_000, 0), 10_000), None);
    let whole = thin(&mut gathered, &sample(30_000, 0), 10_000).unwrap();
    assert_eq!(whole.at, Millis(25_000));
    assert_eq!(whole.values.get(Field::Rss), Some(25_000.0));
    assert_eq!(whole.values.get(Field::LiveHeap), Some(5.0), "absent in the newer one");
    assert_eq!(gathered, sample(30_000, 0));
}

#[test]
fn isolates_come_and_go_without_end() {
    let directory = tempfile::tempdir().unwrap();
    let mut recorder = create(&directory);
    for at in 0..1_000u64 {
        recorder.append_sample(&sample(at * 10_000, 0)).unwrap();
        recorder.append_sample(&sample(at * 10_000, at as u32 + 1)).unwrap();
        assert!(recorder.thinning.len() <= MAX_ISOLATES);
    }
    assert!(recorder.thinning.len() < 30, "{} isolates kept", recorder.thinning.len());
}

#[test]
fn restarts_under_one_pid_leave_each_run_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let recorders: Vec<_> = (0..3).map(|_| create(&directory)).collect();
    assert_eq!(
        names(&directory),
        ["run.acme-shop.7.2.rec", "run.acme-shop.7.3.rec", "run.acme-shop.7.rec"]
    );
    for recorder in &recorders {
        assert_eq!(fs::metadata(recorder.path()).unwrap().len(), MIN_FILE_BYTES);
    }
}

#[test]
fn app_names_make_harmless_file_names() {
    for (app, name) in [
        ("shop", "shop"),
        ("@acme/shop_2", "acme-shop_2"),
        ("../../etc/passwd", "etc-passwd"),
        ("a.b\0c", "a-b-c"),
        ("日本", "app"),
        ("", "app"),
    ] {
        assert_eq!(file_name_part(app), name);
    }
    assert_eq!(file_name_part(&"x".repeat(500)).len(), 64);
}

#[cfg(unix)]
#[test]
fn files_are_private_and_links_are_not_followed() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    fs::write(&target, "precious").unwrap();
    symlink(&target, directory.path().join("run.acme-shop.7.rec")).unwrap();
    symlink(&target, directory.path().join("run.acme-shop.7.2.rec.part")).unwrap();

    let recorder = create(&directory);
    assert_eq!(recorder.path(), directory.path().join("run.acme-shop.7.3.rec"));
    let metadata = fs::metadata(recorder.path()).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(metadata.blocks() * 512 >= MIN_FILE_BYTES, "the space is reserved");
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");

    let link = directory.path().join("run.acme-shop.7.rec");
    assert!(matches!(read_back(&link), Err(ReadBackError::Io(_))));
    let listed: Vec<_> = runs(directory.path()).unwrap().into_iter().map(|run| run.path).collect();
    assert_eq!(listed, [recorder.path()]);
}

#[test]
fn sizes_outside_the_bounds_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for file_bytes in [0, MIN_FILE_BYTES - 1, MAX_FILE_BYTES + 1, u64::MAX] {
        let options = RecorderOptions { file_bytes, ..options(&directory) };
        let error = Recorder::create(&options).unwrap_err();
        assert!(error.to_string().contains(&file_bytes.to_string()), "{error}");
    }
    assert!(names(&directory).is_empty());
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let options =
        RecorderOptions { directory: directory.path().join("gone"), ..options(&directory) };
    assert!(matches!(Recorder::create(&options), Err(RecorderError::Create { .. })));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_while_reserving() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = write_zeros(&full, MIN_FILE_BYTES).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn failed_writes_are_told_once_counted_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut recorder = create(&directory);
    recorder.append_sample(&sample(1_000, 0)).unwrap();
    let writable = recorder.file.try_clone().unwrap();
    recorder.file = File::open(recorder.path()).unwrap();
    assert!(recorder.append_sample(&sample(2_000, 0)).is_err());
    recorder.append_sample(&sample(3_000, 0)).unwrap();
    recorder.append_event(&signal(3_500)).unwrap();
    assert_eq!(recorder.lost_records(), 3);
    recorder.file = writable;
    recorder.append_sample(&sample(4_000, 0)).unwrap();
    assert_eq!(recorder.lost_records(), 3);
    let history = read_back(recorder.path()).unwrap();
    assert_eq!(history.samples, [sample(1_000, 0), sample(4_000, 0)]);
    assert_eq!(history.torn_records, 0);
}

#[test]
fn a_file_truncated_from_outside_is_mended_within_a_minute() {
    let directory = tempfile::tempdir().unwrap();
    let mut recorder = create(&directory);
    recorder.append_sample(&sample(1_000, 0)).unwrap();
    OpenOptions::new().write(true).open(recorder.path()).unwrap().set_len(0).unwrap();
    recorder.append_sample(&sample(2_000, 0)).unwrap();
    assert!(read_back(recorder.path()).is_err(), "no header yet");
    recorder.append_sample(&sample(62_000, 0)).unwrap();
    let history = read_back(recorder.path()).unwrap();
    assert_eq!(history.header.app, "@acme/shop");
    assert!(history.samples.contains(&sample(62_000, 0)));
    assert_eq!((history.torn_records, history.missing_records), (0, 0));
}

#[test]
fn a_deleted_file_is_written_on_without_harm() {
    let directory = tempfile::tempdir().unwrap();
    let mut recorder = create(&directory);
    fs::remove_file(recorder.path()).unwrap();
    for minute in 0..10 {
        recorder.append_sample(&sample(minute * 60_000, 0)).unwrap();
    }
    assert_eq!(recorder.lost_records(), 0);
    assert!(names(&directory).is_empty());
}

#[test]
fn runs_are_listed_newest_first_and_know_whether_they_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let start = |started_unix_ms, app: &str| {
        let mut options = options(&directory);
        options.header.started_unix_ms = started_unix_ms;
        options.header.app = app.into();
        Recorder::create(&options).unwrap()
    };
    let (old, new, other) = (start(10, "a"), start(30, "a"), start(20, "b"));
    let (old_path, new_path) = (old.path().to_owned(), new.path().to_owned());
    let damaged = directory.path().join("run.c.1.rec");
    fs::write(&damaged, "no run").unwrap();
    fs::write(directory.path().join("Finding.json"), "{}").unwrap();
    fs::create_dir(directory.path().join("run.d.1.rec")).unwrap();
    drop(old);

    let listed: Vec<_> = runs(directory.path())
        .unwrap()
        .into_iter()
        .map(|run| (run.path, run.header.is_some(), run.running))
        .collect();
    assert_eq!(
        listed,
        [
            (new_path, true, Some(true)),
            (other.path().to_owned(), true, Some(true)),
            (old_path, true, Some(false)),
            (damaged, false, Some(false)),
        ]
    );
}

#[test]
fn retention_keeps_the_newest_ended_runs_of_one_app() {
    let directory = tempfile::tempdir().unwrap();
    let start = |started_unix_ms, app: &str| {
        let mut options = options(&directory);
        options.header.started_unix_ms = started_unix_ms;
        options.header.app = app.into();
        Recorder::create(&options).unwrap()
    };
    let app = "long name ".repeat(30);
    let going_on = start(0, &app);
    let other = start(0, "other").path().to_owned();
    let ended: Vec<_> = (1..=5).map(|at| start(at, &app).path().to_owned()).collect();

    let removed = keep_newest(directory.path(), &app, 2).unwrap();
    assert_eq!(removed, [ended[2].clone(), ended[1].clone(), ended[0].clone()]);
    assert!(going_on.path().exists() && other.exists() && ended[3].exists() && ended[4].exists());
    assert!(keep_newest(directory.path(), &app, 2).unwrap().is_empty());
}

#[test]
fn the_recorders_file_is_the_guards_own() {
    // Other tests register descriptors meanwhile: look for an undisturbed moment.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let directory = tempfile::tempdir().unwrap();
        let before = own::counts().fds;
        let recorder = create(&directory);
        let with_recorder = own::counts().fds;
        drop(recorder);
        if with_recorder == before + 1 && own::counts().fds == before {
            break;
        }
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}

/// Set in a child of [`kill_at_any_moment_leaves_a_readable_run`] to its directory.
const CHILD: &str = "RECORDER_TEST_CHILD";

#[test]
fn kill_at_any_moment_leaves_a_readable_run() {
    if let Some(directory) = std::env::var_os(CHILD) {
        record_until_killed(directory.into());
        return;
    }
    const KILLS: u64 = 40;
    let name = "recorder::tests::kill_at_any_moment_leaves_a_readable_run";
    for kill in 0..KILLS {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The moment is random because the child runs on between saying so and the kill.
        let mut told = None;
        let stop_after = kill * 7 % 23;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while told < Some(stop_after) {
            let line = lines.next().expect("the child ended by itself").unwrap();
            if let Some((_, number)) = line.split_once("recorded ") {
                told = Some(number.parse().unwrap());
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before the kill reached it.
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("recorded ").and_then(|n| n.parse().ok()) {
                told = Some(number);
            }
        }

        let listed = runs(directory.path()).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].running, Some(false));
        let history = read_back(&listed[0].path).unwrap();
        assert_eq!((history.torn_records, history.missing_records), (0, 0));
        assert!(!history.ended_cleanly());
        let complete = told.unwrap() * ROUND;
        let found = history.samples.last().map_or(0, |last| last.at.0 / 1000 + 1);
        assert!(found >= complete, "told {complete}, found {found}");
        // Nothing is missing between: every second of the last hours is there.
        let fine = history.samples.iter().rev().take(2_000);
        for (back, sample) in fine.enumerate() {
            assert_eq!(sample.at.0, (found - 1 - back as u64) * 1000);
        }
    }
}

/// Samples between two lines of the child.
const ROUND: u64 = 500;

fn record_until_killed(directory: PathBuf) {
    let header = RunHeader { app: "child".into(), ..RunHeader::default() };
    let options = RecorderOptions { directory, file_bytes: MIN_FILE_BYTES, header };
    let mut recorder = Recorder::create(&options).unwrap();
    let mut second = 0;
    for round in 0.. {
        // A parent that is gone reads no more: the write fails and the child ends.
        if writeln!(io::stdout(), "recorded {round}").and_then(|()| io::stdout().flush()).is_err() {
            return;
        }
        for _ in 0..ROUND {
            recorder.append_sample(&sample(second * 1000, 0)).unwrap();
            recorder.append_event(&signal(second * 1000)).unwrap();
            second += 1;
        }
    }
}

/// A run of some hundred records, as bytes, with what it holds.
fn recorded() -> (Vec<u8>, RunHistory) {
    let directory = tempfile::tempdir().unwrap();
    let mut recorder = create(&directory);
    for second in 0..400 {
        recorder.append_sample(&sample(second * 1000, 0)).unwrap();
        if second % 7 == 0 {
            recorder.append_event(&signal(second * 1000)).unwrap();
        }
    }
    let bytes = fs::read(recorder.path()).unwrap();
    let history = read_back_from(bytes.as_slice()).unwrap();
    (bytes, history)
}

#[test]
fn a_truncated_file_gives_what_is_left() {
    let (bytes, whole) = recorded();
    let kept = 4096 + 100 * 128 + 60;
    let history = read_back_from(&bytes[..kept]).unwrap();
    assert_eq!(history.samples, whole.samples[..100]);
    assert_eq!(history.missing_records, (bytes.len() as u64 - 4096) / 128 - 100);
    assert!(matches!(read_back_from(&bytes[..4000]), Ok(_) | Err(ReadBackError::NotARun(_))));
    assert!(matches!(read_back_from(&bytes[..100]), Err(ReadBackError::NotARun(_))));
    assert!(matches!(read_back_from(&b""[..]), Err(ReadBackError::NotARun(_))));
}

#[test]
fn an_endless_file_is_read_to_its_size_only() {
    let (bytes, whole) = recorded();
    let endless = io::Read::chain(bytes.as_slice(), io::repeat(7));
    assert_eq!(read_back_from(endless).unwrap(), whole);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_records_are_counted_and_never_believed(
        changes in proptest::collection::vec((4096usize..4096 + 400 * 128, 1u8..), 1..40),
    ) {
        let (mut bytes, whole) = recorded();
        let mut torn = std::collections::BTreeSet::new();
        for &(at, change) in &changes {
            bytes[at] = bytes[at].wrapping_add(change);
            torn.insert(at / 128);
        }
        let history = read_back_from(bytes.as_slice()).unwrap();
        // Two changes of one byte may undo each other.
        prop_assert!(history.torn_records <= torn.len() as u64);
        prop_assert!(history.torn_records > 0 || history == whole);
        // What the fine ring lost the others may have: samples that stand for a whole period.
        let own = |sample: &Sample| sample.values.get(Field::Rss) == Some(sample.at.0 as f64);
        prop_assert!(history.samples.iter().all(|s| whole.samples.contains(s) && own(s)));
        prop_assert!(history.events.iter().all(|event| whole.events.contains(event)));
    }

    #[test]
    fn any_bytes_end_in_a_history_or_an_error(
        cut in 0usize..(1 << 20),
        changes in proptest::collection::vec((0usize..(1 << 20), any::<u8>()), 0..100),
        header_changes in proptest::collection::vec((0usize..400, any::<u8>()), 0..3),
    ) {
        let (mut bytes, _) = recorded();
        for (at, byte) in changes.into_iter().chain(header_changes) {
            bytes[at] = byte;
        }
        bytes.truncate(cut);
        if let Ok(history) = read_back_from(bytes.as_slice()) {
            prop_assert!(history.samples.len() <= (1 << 20) / 128);
        }
    }

    #[test]
    fn the_fine_ring_equals_a_queue(count in 0u64..7_000) {
        let directory = tempfile::tempdir().unwrap();
        let mut recorder = create(&directory);
        let slots = recorder.layout.slots(Section::Fine) as usize;
        let mut queue = VecDeque::new();
        for second in 0..count {
            recorder.append_sample(&sample(second * 1000, 0)).unwrap();
            queue.push_back(sample(second * 1000, 0));
            if queue.len() > slots {
                queue.pop_front();
            }
        }
        let history = read_back(recorder.path()).unwrap();
        let newest = &history.samples[history.samples.len() - queue.len()..];
        prop_assert!(queue.iter().eq(newest));
    }
}
