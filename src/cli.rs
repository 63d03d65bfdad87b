//! The command line: `leakguard analyze · diff · report · redact · doctor`, and what later verbs add to [`VERBS`].
//!
//! It reads arguments, opens files, says what it will cost, and writes a report; everything that decides is in `heap`.
//! A verb is one row of the table: its arguments and what runs it.

mod analyze;
mod beside;
mod diff;
mod doctor;
mod memory;
mod redact;
mod report;
mod run;

use std::io::Write;

use clap::{ArgMatches, Command};

use crate::doctor::Runtime;
pub use memory::predicted as predicted_memory;
pub use run::{Exit, Failure, Session};

/// One verb of the command line.
pub struct Verb {
    /// Its arguments and help.
    pub command: fn() -> Command,
    /// Runs it.
    pub run: fn(&ArgMatches, &mut Session<'_>) -> Result<Exit, Failure>,
}

/// All verbs, in the order of the help.
pub const VERBS: &[Verb] = &[
    Verb { command: analyze::command, run: analyze::run },
    Verb { command: diff::command, run: diff::run },
    Verb { command: report::command, run: report::run },
    Verb { command: redact::command, run: redact::run },
    Verb { command: doctor::command, run: doctor::run },
];

/// Runs one command line (without the program name) and returns its exit code: 0 done, 1 a `--fail-on-…` flag
/// applied, 2 usage or bad input, 3 refused. `runtime` is the process it runs in.
pub fn run(
    args: &[String],
    runtime: Runtime,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> i32 {
    let program = Command::new("leakguard")
        .about("Reads, compares and redacts V8 heap snapshots, reports on evidence, and checks a set-up")
        .version(env!("CARGO_PKG_VERSION"))
        .no_binary_name(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(
            "Exit codes: 0 done, 1 a --fail-on flag applied, 2 usage or bad input, 3 refused",
        )
        .subcommands(VERBS.iter().map(|verb| (verb.command)()));
    let matches = match program.try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            let asked = !error.use_stderr();
            let text = error.render().to_string();
            let _ = if asked {
                stdout.write_all(text.as_bytes())
            } else {
                stderr.write_all(text.as_bytes())
            };
            return if asked { Exit::Done } else { Exit::Usage }.code();
        }
    };
    let verb = matches.subcommand().and_then(|(name, matches)| {
        let verb = VERBS.iter().find(|verb| (verb.command)().get_name() == name)?;
        Some((verb, matches))
    });
    let Some((verb, matches)) = verb else { return Exit::Usage.code() };
    let mut session = Session::new(runtime, stdout, stderr);
    match (verb.run)(matches, &mut session) {
        Ok(exit) => exit.code(),
        Err(failure) => session.fail(&failure).code(),
    }
}
