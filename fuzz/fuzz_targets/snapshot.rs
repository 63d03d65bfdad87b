//! Any bytes as a heap snapshot: read, graphed, analysed, compared with itself, redacted and reported. Whatever the
//! bytes, nothing may panic, hang or take memory beyond what a text of that size can hold.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| leakguard::heap::analysis::exercise(text));
