//! Tells a whole heap snapshot from a truncated one while its bytes pass by, in constant memory.
//!
//! It checks the frame of the JSON, not its meaning: begins with `{"snapshot":`, brackets and strings
//! close in order, `strings` came as an array of the outermost object, that object closed, and nothing
//! but blanks follows. Counts and fields are the analyzer's business.

/// What every `.heapsnapshot` since V8 3 begins with.
const HEAD: &[u8] = b"{\"snapshot\":";
const STRINGS_KEY: &[u8] = b"strings";
/// Kinds of the outermost open brackets, one bit each; deeper ones are only counted. A snapshot is 4 deep
/// except in its `trace_tree`.
const TRACKED_DEPTH: u32 = 64;

/// Why a stream is not a whole snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incomplete {
    /// Nothing came.
    Empty,
    /// It does not begin like a snapshot.
    NotASnapshot,
    /// A bracket closes what was not open, at this byte.
    Malformed { offset: u64 },
    /// It ended before the outermost object closed.
    Truncated { bytes: u64 },
    /// The outermost object closed without an array `strings`.
    NoStrings,
    /// Something follows the snapshot, at this byte.
    Trailing { offset: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Head,
    Structure,
    InString,
    AfterBackslash,
    Closed,
    Bad,
}

/// The streaming check. Push everything, then ask [`Completeness::finish`].
#[derive(Debug)]
pub(crate) struct Completeness {
    place: Place,
    offset: u64,
    depth: u32,
    /// Bit n: the bracket at depth n + 1 is an array.
    arrays: u64,
    /// How much of `strings` the string now read, at depth 1, has matched; `None`: not that one.
    key: Option<usize>,
    /// The last string at depth 1 was `strings`, and nothing but `:` and blanks came since.
    at_strings: bool,
    strings_closed: bool,
    in_strings: bool,
    problem: Option<Incomplete>,
}

impl Completeness {
    pub fn new() -> Self {
        Self {
            place: Place::Head,
            offset: 0,
            depth: 0,
            arrays: 0,
            key: None,
            at_strings: false,
            strings_closed: false,
            in_strings: false,
            problem: None,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((&byte, tail)) = rest.split_first() {
            // Numbers and commas outside strings, and text inside them, are nearly all there is.
            let skip = match self.place {
                Place::Structure if !self.at_strings => {
                    rest.iter().position(|&b| STRUCTURAL[usize::from(b)]).unwrap_or(rest.len())
                }
                Place::InString if self.key.is_none() => {
                    memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len())
                }
                Place::Bad => return,
                _ => 0,
            };
            if skip > 0 {
                self.offset += skip as u64;
                rest = rest.get(skip..).unwrap_or_default();
                continue;
            }
            self.step(byte);
            self.offset += 1;
            rest = tail;
        }
    }

    fn step(&mut self, byte: u8) {
        match self.place {
            Place::Head => {
                let at = usize::try_from(self.offset).unwrap_or(usize::MAX);
                if HEAD.get(at) != Some(&byte) {
                    return self.fail(Incomplete::NotASnapshot);
                }
                if at + 1 == HEAD.len() {
                    self.place = Place::Structure;
                    self.depth = 1;
                }
            }
            Place::Structure => self.structure(byte),
            Place::InString => match byte {
                b'"' => {
                    self.place = Place::Structure;
                    self.at_strings = self.key.take() == Some(STRINGS_KEY.len());
                }
                b'\\' => {
                    self.key = None;
                    self.place = Place::AfterBackslash;
                }
                _ => {
                    self.key = self
                        .key
                        .filter(|&matched| STRINGS_KEY.get(matched) == Some(&byte))
                        .map(|matched| matched + 1);
                }
            },
            Place::AfterBackslash => self.place = Place::InString,
            Place::Closed => {
                if !byte.is_ascii_whitespace() {
                    self.fail(Incomplete::Trailing { offset: self.offset });
                }
            }
            Place::Bad => {}
        }
    }

    fn structure(&mut self, byte: u8) {
        let at_strings = std::mem::take(&mut self.at_strings);
        match byte {
            b'"' => {
                self.place = Place::InString;
                self.key = (self.depth == 1).then_some(0);
            }
            b'{' | b'[' => {
                let array = byte == b'[';
                if self.depth < TRACKED_DEPTH {
                    let bit = 1 << self.depth;
                    self.arrays = if array { self.arrays | bit } else { self.arrays & !bit };
                }
                if self.depth == 1 {
                    self.in_strings = at_strings && array;
                }
                self.depth = self.depth.saturating_add(1);
            }
            b'}' | b']' => {
                let depth = self.depth.saturating_sub(1);
                let array = byte == b']';
                if depth < TRACKED_DEPTH && (self.arrays >> depth & 1 == 1) != array {
                    return self.fail(Incomplete::Malformed { offset: self.offset });
                }
                self.depth = depth;
                match depth {
                    1 => self.strings_closed |= self.in_strings,
                    0 if self.strings_closed => self.place = Place::Closed,
                    0 => self.fail(Incomplete::NoStrings),
                    _ => {}
                }
            }
            b':' | b' ' | b'\n' | b'\r' | b'\t' => self.at_strings = at_strings,
            _ => {}
        }
    }

    fn fail(&mut self, problem: Incomplete) {
        self.place = Place::Bad;
        self.problem = Some(problem);
    }

    /// The verdict on everything pushed.
    pub fn finish(self) -> Result<(), Incomplete> {
        match (self.problem, self.place) {
            (Some(problem), _) => Err(problem),
            (None, Place::Closed) => Ok(()),
            (None, _) if self.offset == 0 => Err(Incomplete::Empty),
            (None, _) => Err(Incomplete::Truncated { bytes: self.offset }),
        }
    }
}

/// Bytes that matter outside strings.
const STRUCTURAL: [bool; 256] = {
    let mut table = [false; 256];
    table[b'"' as usize] = true;
    table[b'{' as usize] = true;
    table[b'}' as usize] = true;
    table[b'[' as usize] = true;
    table[b']' as usize] = true;
    table
};

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const WHOLE: &str = concat!(
        r#"{"snapshot":{"meta":{"node_fields":["type","strings"],"node_types":[["hidden"],"string"]},"#,
        r#""node_count":2},"#,
        "\n",
        r#""nodes":[9,1,1,0,1,0,"#,
        "\n",
        r#"9,2,3,0,0,0],"edges":[1,2,3],"trace_tree":[0,[1,[2]]],"locations":[],"#,
        r#""strings":["<dummy>","a \"quoted]}\" \\","\u0000{[","strings"]}"#,
        "\n"
    );

    fn check(chunks: &[&[u8]]) -> Result<(), Incomplete> {
        let mut check = Completeness::new();
        chunks.iter().for_each(|chunk| check.push(chunk));
        check.finish()
    }

    #[test]
    fn a_whole_snapshot_is_complete_however_it_is_cut_into_chunks() {
        let bytes = WHOLE.as_bytes();
        assert_eq!(check(&[bytes]), Ok(()));
        for at in 0..bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(check(&[a, b]), Ok(()), "cut at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(check(&single), Ok(()));
    }

    #[test]
    fn every_truncation_is_seen() {
        let text = WHOLE.trim_end();
        for at in 0..text.len() {
            check(&[&text.as_bytes()[..at]]).unwrap_err();
        }
    }

    #[test]
    fn the_problem_is_named() {
        for (text, problem) in [
            ("", Incomplete::Empty),
            (r#"{"snap"#, Incomplete::Truncated { bytes: 6 }),
            ("<html>", Incomplete::NotASnapshot),
            (r#"{"nodes":[]}"#, Incomplete::NotASnapshot),
            (r#"{"snapshot":{}}"#, Incomplete::NoStrings),
            (r#"{"snapshot":{"strings":[]}}"#, Incomplete::NoStrings),
            (r#"{"snapshot":{},"x":"strings","y":[]}"#, Incomplete::NoStrings),
            (r#"{"snapshot":{},"strings":{}}"#, Incomplete::NoStrings),
            (r#"{"snapshot":{},"stringsx":[]}"#, Incomplete::NoStrings),
            (r#"{"snapshot":{},"strings\n":[]}"#, Incomplete::NoStrings),
            (r#"{"snapshot":{},"strings":[}"#, Incomplete::Malformed { offset: 26 }),
            (r#"{"snapshot":{]"#, Incomplete::Malformed { offset: 13 }),
            (r#"{"snapshot":{},"strings":["#, Incomplete::Truncated { bytes: 26 }),
            (r#"{"snapshot":{},"strings":[]}}"#, Incomplete::Trailing { offset: 28 }),
            (r#"{"snapshot":{},"strings":[]}{"#, Incomplete::Trailing { offset: 28 }),
        ] {
            assert_eq!(check(&[text.as_bytes()]), Err(problem), "{text}");
        }
    }

    proptest! {
        #[test]
        fn strings_may_hold_anything(strings in prop::collection::vec(any::<String>(), 0..20), cut in any::<prop::sample::Index>()) {
            let text = format!(r#"{{"snapshot":{{}},"strings":{}}}"#, serde_json::to_string(&strings).unwrap());
            prop_assert_eq!(check(&[text.as_bytes()]), Ok(()));
            let at = cut.index(text.len());
            prop_assert!(check(&[&text.as_bytes()[..at]]).is_err());
        }
    }
}
