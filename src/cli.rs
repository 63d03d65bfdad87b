//! The command line: `leakguard analyze · diff · report · redact · doctor`.

use std::io::Write;

/// Runs one command line (without the program name) and returns the exit code of DESIGN: 0 done, 1 a
/// `--fail-on-…` flag applied, 2 usage or bad input, 3 refused.
pub fn run(args: &[String], _stdout: &mut dyn Write, stderr: &mut dyn Write) -> i32 {
    let _ = writeln!(stderr, "leakguard: unknown command {:?}", args.first());
    2
}
