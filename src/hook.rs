//! The hook: a command that is started for each new evidence file. It is started by argument vector, never by
//! a shell: nothing in a file name, a finding or the environment is ever parsed as a command, and the file
//! is named in environment variables only. One runs at a time, in a process group of its own, with a
//! timeout; what becomes of it changes nothing about the file.
//!
//! A delivery is noted in `leakguard.state` before it begins and struck off when it ended. If the process dies
//! in between, the next start makes it again: a file may be delivered twice, and is not forgotten. A command that
//! ran and failed is not tried again.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Value, json};

use crate::child::{self, Ended as ChildEnded, status_words};
use crate::evidence::state::Delivery;
use crate::evidence::{EvidenceName, ProcessIdentity, Store, WallMillis};
use crate::probe::own;

/// Files waiting for the hook; the oldest is given up when more come.
const MAX_WAITING: usize = 32;

/// How long a command may run: enough for a snapshot of the default quota over a slow link.
pub const TIMEOUT: Duration = Duration::from_secs(600);

/// Splits a command line into its arguments: at white space, except between double quotes, which are taken
/// away. There is no other syntax: no escapes, no variables, no patterns, no operators.
///
/// # Errors
/// In words, if it is empty or a quote is not closed.
pub fn split(command: &str) -> Result<Vec<String>, &'static str> {
    let mut arguments = Vec::new();
    let mut argument: Option<String> = None;
    let mut quoted = false;
    for c in command.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                argument.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => arguments.extend(argument.take()),
            c => argument.get_or_insert_default().push(c),
        }
    }
    if quoted {
        return Err("a double quote is not closed");
    }
    arguments.extend(argument);
    match arguments.first() {
        Some(program) if !program.is_empty() => Ok(arguments),
        _ => Err("there is no program in it"),
    }
}

/// What a command is started with.
#[derive(Clone, Debug)]
struct Launch {
    arguments: Vec<String>,
    environment: Arc<Vec<(OsString, OsString)>>,
    cwd: PathBuf,
    timeout: Duration,
}

/// How a command ended; an `Err` says in words what went wrong.
type Ended = Result<(), String>;

/// The hook of this process.
pub struct Hook {
    launch: Option<Launch>,
    store: Option<Arc<Store>>,
    waiting: VecDeque<Delivery>,
    running: Option<Delivery>,
    ended: (Sender<Ended>, Receiver<Ended>),
    environment: Arc<Vec<(OsString, OsString)>>,
    cwd: PathBuf,
    delivered: u64,
    failed: u64,
    given_up: u64,
}

impl Hook {
    /// A hook that does nothing until [`configure`](Self::configure). `environment` was read on the JS thread;
    /// `cwd` is where relative programs are looked for, and where the command runs. The token of the status page
    /// is none of the command's business.
    pub fn new(mut environment: Vec<(OsString, OsString)>, cwd: PathBuf) -> Hook {
        environment.retain(|(name, _)| !name.eq_ignore_ascii_case("LEAKGUARD_TOKEN"));
        Hook {
            launch: None,
            store: None,
            waiting: VecDeque::new(),
            running: None,
            ended: bounded(1),
            environment: Arc::new(environment),
            cwd,
            delivered: 0,
            failed: 0,
            given_up: 0,
        }
    }

    /// Sets the command, `None` for off, and the directory whose files it is started for. What waits, waits on.
    pub fn configure(&mut self, command: Option<&[String]>, store: Option<Arc<Store>>) {
        self.store = store;
        self.launch = command.filter(|arguments| !arguments.is_empty()).map(|arguments| Launch {
            arguments: arguments.to_vec(),
            environment: Arc::clone(&self.environment),
            cwd: self.cwd.clone(),
            timeout: TIMEOUT,
        });
    }

    /// Takes over what processes of this directory that died have left undelivered.
    pub fn adopt(&mut self, now: WallMillis) {
        if self.launch.is_none() {
            return;
        }
        let Some(store) = self.store.clone() else { return };
        let me = ProcessIdentity::current();
        // A state that cannot be had is said by whoever needs it for more than this.
        let adopted = store.update_state(now, |state| state.adopt_deliveries(now, me));
        for delivery in adopted.unwrap_or_default() {
            // The name comes from a file: only one of our scheme is handed on. It may be gone by now.
            let known = EvidenceName::parse(&delivery.file).is_some_and(|name| {
                store.path_of(&name).symlink_metadata().is_ok_and(|m| m.is_file())
            });
            if known {
                self.put(delivery);
            } else {
                let _ = store.update_state(now, |state| state.end_delivery(&delivery.file));
            }
        }
    }

    /// A new evidence file. `finding` is the name of the finding's file that it belongs to.
    pub fn offer(&mut self, now: WallMillis, file: &str, kind: &str, finding: Option<&str>) {
        if self.launch.is_none() {
            return;
        }
        let delivery = Delivery {
            file: file.to_owned(),
            kind: kind.to_owned(),
            finding: finding.map(str::to_owned),
            pid: std::process::id(),
            by: ProcessIdentity::current().clone(),
            at: now,
            tries: 0,
        };
        if let Some(store) = &self.store {
            let _ = store.update_state(now, |state| state.begin_delivery(delivery.clone()));
        }
        self.put(delivery);
    }

    fn put(&mut self, delivery: Delivery) {
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
            self.given_up += 1;
        }
        self.waiting.push_back(delivery);
    }

    /// Once a tick: takes the end of the command that ran and starts the next. An `Err` is a failure to be told,
    /// in one sentence.
    pub fn poll(&mut self, now: WallMillis) -> Result<(), String> {
        let mut result = Ok(());
        if let Ok(ended) = self.ended.1.try_recv()
            && let Some(delivery) = self.running.take()
        {
            if let Some(store) = &self.store {
                let _ = store.update_state(now, |state| state.end_delivery(&delivery.file));
            }
            match ended {
                Ok(()) => self.delivered += 1,
                Err(why) => {
                    self.failed += 1;
                    result =
                        Err(format!("LEAKGUARD_HOOK: {why} for {}; the file stays", delivery.file));
                }
            }
        }
        if self.running.is_none()
            && let (Some(launch), Some(store)) = (self.launch.clone(), &self.store)
            && let Some(delivery) = self.waiting.pop_front()
        {
            let variables = variables(store.path(), &delivery);
            let sender = self.ended.0.clone();
            let started =
                std::thread::Builder::new().name("leakguard-hook".into()).spawn(move || {
                    let _own = own::thread();
                    let _ = sender.try_send(run(&launch, &variables));
                });
            self.running = Some(delivery);
            if let Err(error) = started {
                let _ =
                    self.ended.0.try_send(Err(format!("its thread could not be started: {error}")));
            }
        }
        result
    }

    /// For `status()`.
    pub fn to_json(&self) -> Value {
        json!({
            "program": self.launch.as_ref().and_then(|launch| launch.arguments.first()),
            "running": self.running.as_ref().map(|delivery| &delivery.file),
            "waiting": self.waiting.len(),
            "delivered": self.delivered,
            "failed": self.failed,
            "givenUp": self.given_up,
        })
    }
}

/// What the command is told. `LEAKGUARD=off` keeps a hook written in Node from being guarded itself.
fn variables(directory: &Path, delivery: &Delivery) -> Vec<(&'static str, OsString)> {
    let path = |name: &str| directory.join(name).into_os_string();
    vec![
        ("LEAKGUARD", "off".into()),
        ("LEAKGUARD_FILE", path(&delivery.file)),
        ("LEAKGUARD_KIND", delivery.kind.clone().into()),
        ("LEAKGUARD_FINDING", delivery.finding.as_deref().map(path).unwrap_or_default()),
        ("LEAKGUARD_PID", delivery.pid.to_string().into()),
    ]
}

/// Starts the command and waits for its end; kills its process group when the time is over.
fn run(launch: &Launch, variables: &[(&'static str, OsString)]) -> Result<(), String> {
    let program = find_program(launch)?;
    let name = program.display();
    let mut child = child::command(&program, launch.environment.iter())
        .args(launch.arguments.iter().skip(1))
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .current_dir(&launch.cwd)
        .spawn()
        .map_err(|error| format!("{name} could not be started: {error}"))?;
    match child::wait(&mut child, launch.timeout, |_| None) {
        Ok(ChildEnded::Exited(status)) if !status.success() => {
            Err(format!("{name} ended with {}", status_words(status)))
        }
        Ok(ChildEnded::Exited(_) | ChildEnded::Unknown) => Ok(()),
        Ok(ChildEnded::Stopped(_) | ChildEnded::TimedOut) => {
            Err(format!("{name} was killed after {} s", launch.timeout.as_secs_f64().round()))
        }
        Err(error) => Err(format!("{name} could not be waited for: {error}")),
    }
}

/// The program as an absolute path: with a separator relative to the app's first working directory, without
/// one from its `PATH`. Resolved here so that std need not search, which it can only do after a fork.
fn find_program(launch: &Launch) -> Result<PathBuf, String> {
    let name = launch.arguments.first().map(String::as_str).unwrap_or_default();
    let path = launch.environment.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value);
    locate(name, &launch.cwd, path.map(OsString::as_os_str))
}

/// Why a hook with this program could not be started from this working directory and `PATH`, as far as one can tell
/// without starting it; `None` if it could.
pub fn problem(program: &str, cwd: &Path, path: Option<&OsStr>) -> Option<String> {
    match locate(program, cwd, path) {
        Err(why) => Some(why),
        Ok(program) if is_program(&program) => None,
        Ok(program) => Some(format!("{} is no executable file", program.display())),
    }
}

fn locate(name: &str, cwd: &Path, path: Option<&OsStr>) -> Result<PathBuf, String> {
    if Path::new(name).components().count() > 1 || Path::new(name).is_absolute() {
        return Ok(cwd.join(name));
    }
    path.map(|path| std::env::split_paths(path).collect::<Vec<_>>())
        .unwrap_or_default()
        .into_iter()
        // An empty entry means the working directory, which nobody wants searched for programs.
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|program| is_program(program))
        .ok_or_else(|| format!("{name} was not found in PATH"))
}

fn is_program(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    }
    #[cfg(not(unix))]
    {
        path.is_file()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_command_line_is_split_at_blanks_and_nothing_else_is_syntax() {
        let table: [(&str, &[&str]); 8] = [
            ("aws s3 cp", &["aws", "s3", "cp"]),
            ("  aws\t s3\n", &["aws", "s3"]),
            (r#""/opt/my tools/send" "a b"c """#, &["/opt/my tools/send", "a bc", ""]),
            (
                "a;b | c && d > e $(f) `g` $HOME *",
                &["a;b", "|", "c", "&&", "d", ">", "e", "$(f)", "`g`", "$HOME", "*"],
            ),
            (r"a\ b 'c d'", &[r"a\", "b", "'c", "d'"]),
            (r#"a "" b"#, &["a", "", "b"]),
            ("é \u{2003} x", &["é", "x"]),
            (r#"x"y"z"#, &["xyz"]),
        ];
        for (command, arguments) in table {
            assert_eq!(split(command).unwrap(), arguments, "{command}");
        }
        assert!(split("").is_err());
        assert!(split("  ").is_err());
        assert!(split(r#""" a"#).is_err());
        assert!(split(r#"a "b"#).is_err());
    }

    #[test]
    fn the_command_does_not_get_the_token_of_the_status_page() {
        let environment = ["LEAKGUARD_TOKEN", "LEAKGUARD_DIR", "PATH"];
        let environment = environment.map(|name| (name.into(), "x".into())).to_vec();
        let kept: Vec<OsString> =
            Hook::new(environment, "/".into()).environment.iter().map(|(n, _)| n.clone()).collect();
        assert_eq!(kept, ["LEAKGUARD_DIR", "PATH"]);
    }

    fn launch(arguments: &[&str], timeout: Duration) -> Launch {
        Launch {
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            environment: Arc::new(vec![
                ("PATH".into(), "relative::/usr/bin:/bin".into()),
                ("IFS".into(), " ".into()),
                ("BASH_ENV".into(), "$(touch /nonexistent/owned)".into()),
                ("A=B".into(), "bad name".into()),
            ]),
            cwd: "/".into(),
            timeout,
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn nothing_hostile_in_names_or_arguments_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let owned = folder.path().join("owned");
        let evil = format!("$(touch {0}); `touch {0}` | touch {0} && touch {0}", owned.display());
        let delivery = Delivery {
            file: evil.clone(),
            kind: evil.clone(),
            finding: Some(evil.clone()),
            pid: 1,
            by: ProcessIdentity::current().clone(),
            at: WallMillis(0),
            tries: 0,
        };
        let told = variables(folder.path(), &delivery);
        // `env` writes nowhere; `test` compares what arrives with what was sent, byte for byte.
        run(&launch(&["env"], MINUTE), &told).unwrap();
        run(&launch(&["test", &evil, "=", &evil], MINUTE), &told).unwrap();
        let failed = run(&launch(&["test", "a", "=", "b"], MINUTE), &told).unwrap_err();
        assert!(failed.ends_with("test ended with exit code 1"), "{failed}");
        let absent = run(&launch(&[&evil], MINUTE), &told).unwrap_err();
        assert!(absent.contains("could not be started"), "{absent}");
        let absent = run(&launch(&["no-such-program"], MINUTE), &told).unwrap_err();
        assert_eq!(absent, "no-such-program was not found in PATH");
        assert!(!owned.exists());
    }

    #[test]
    fn a_command_that_does_not_end_is_killed_with_its_children() {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, openat};
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("held");
        let private = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, &fifo, FileType::Fifo, private, 0).unwrap();
        let held = openat(CWD, &fifo, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        let script = format!("sleep 600 > {} & wait", fifo.display());
        let began = Instant::now();
        // The operator may name a shell; that is the only way to one.
        let error = run(&launch(&["sh", "-c", &script], Duration::from_secs(2)), &[]).unwrap_err();
        assert!(error.contains("sh was killed after 2 s"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(30));
        // The sleeper is the last that holds the pipe: its other end hangs up when it dies.
        let patience = Timespec::try_from(MINUTE).unwrap();
        let mut held = [PollFd::new(&held, PollFlags::IN)];
        assert_eq!(poll(&mut held, Some(&patience)).unwrap(), 1);
        assert!(held[0].revents().contains(PollFlags::HUP));
    }
}
