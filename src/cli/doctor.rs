//! `leakguard doctor`: gathers what the guard of an app started here would find, and prints the judgement of
//! [`crate::doctor`]. It leaves the directory as it was.

use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::run::{Exit, Failure, Session};
use crate::config::{self, Config};
use crate::doctor::{self, AppRun, Seen};
use crate::evidence::fork::{self, ForkAbility};
use crate::evidence::survey::Survey;
use crate::evidence::{StoreOptions, WallMillis};
use crate::recorder::{self, Field, RunHeader};
use crate::{hook, probe, sampler};

/// Its arguments.
pub fn command() -> Command {
    Command::new("doctor")
        .about("Checks directory, limits, settings and ways, and says what would happen at a finding now")
        .arg(
            Arg::new("heap")
                .long("heap")
                .value_name("SIZE")
                .value_parser(|text: &str| {
                    config::parse_size(text).ok_or("expected a size like 64MB (B KB MB GB)")
                })
                .help("The live heap to assume, such as 64MB; else that of an app which records here"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Write JSON (docs/DOCTOR-JSON.md)"),
        )
        .arg(
            Arg::new("fail-on-problems")
                .long("fail-on-problems")
                .action(ArgAction::SetTrue)
                .help("Exit with 1 if there is a problem"),
        )
}

/// Runs it.
pub fn run(matches: &ArgMatches, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let seen = look(session, matches.get_one::<u64>("heap").copied());
    let diagnosis = doctor::diagnose(&seen);
    let written = if matches.get_flag("json") {
        serde_json::to_writer_pretty(&mut *session.stdout, &diagnosis)
            .map_err(std::io::Error::from)
            .and_then(|()| session.stdout.write_all(b"\n"))
    } else {
        session.stdout.write_all(doctor::text(&diagnosis).as_bytes())
    };
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Output("stdout".into(), error))
        }
        _ if matches.get_flag("fail-on-problems") && diagnosis.problems > 0 => Ok(Exit::FailOn),
        _ => Ok(Exit::Done),
    }
}

fn look(session: &Session<'_>, heap_bytes: Option<u64>) -> Seen {
    let now = WallMillis::now();
    let (config, problems) = config::resolve(&session.runtime.given);
    let options = StoreOptions {
        dir: config.dir.clone(),
        max_disk_bytes: config.max_disk_bytes,
        temp_dir: std::env::temp_dir(),
    };
    let survey = Survey::of(&options, now);
    let app = survey.used.as_deref().filter(|_| survey.exists);
    Seen {
        now,
        app: app.and_then(|directory| running_app(directory, now, &config)),
        survey,
        process: probe::open().read(probe::own::counts()),
        cgroup: probe::memory_cgroup(),
        fork: fork_ability(),
        hook_problem: hook_problem(&config),
        heap_bytes,
        config,
        problems,
        runtime: session.runtime.clone(),
    }
}

/// The self-test wants a thread of its own, as the guard has one.
fn fork_ability() -> Result<(), String> {
    let thread = std::thread::Builder::new().name("leakguard".into()).spawn(|| {
        let _own = probe::own::thread();
        fork::self_test()
    });
    let ability = thread
        .map_err(|error| error.to_string())
        .and_then(|thread| thread.join().map_err(|_| "the self-test failed".to_owned()));
    match ability {
        Ok(ForkAbility::Possible(_)) => Ok(()),
        Ok(ForkAbility::Not(why)) | Err(why) => Err(why),
    }
}

fn hook_problem(config: &Config) -> Option<String> {
    let program = config.hook.as_ref()?.first()?;
    let cwd = std::env::current_dir().unwrap_or_default();
    hook::problem(program, &cwd, std::env::var_os("PATH").as_deref())
}

/// The newest app that records into the directory from this very container: its figures are those that count.
fn running_app(directory: &Path, now: WallMillis, config: &Config) -> Option<AppRun> {
    let host = probe::host_identity();
    let here = |header: &RunHeader| {
        header.boot_id == host.boot_id
            && header.cgroup_inode == host.cgroup_inode
            && config.app.as_ref().is_none_or(|app| *app == header.app)
    };
    let run = recorder::runs(directory)
        .ok()?
        .into_iter()
        .find(|run| run.running == Some(true) && run.header.as_ref().is_some_and(here))?;
    let history = recorder::read_back(&run.path).ok()?;
    let last = |field: Field| {
        let mut samples = history.samples.iter().rev().filter(|sample| sample.isolate == 0);
        samples.find_map(|sample| sample.values.get(field))
    };
    let live = sampler::expected_live(last(Field::LiveHeap), last(Field::HeapUsed))?;
    let at = history.header.started_unix_ms.saturating_add(history.last_at()?.0);
    Some(AppRun {
        app: history.header.app,
        pid: history.header.pid,
        age_ms: now.0.saturating_sub(at),
        live_heap_bytes: live.max(0.0) as u64,
        rss_bytes: last(Field::Rss).map(|bytes| bytes.max(0.0) as u64),
        heap_limit_bytes: last(Field::HeapLimit),
    })
}
