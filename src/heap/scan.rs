//! A cursor over JSON text: unsigned integers fast, strings and skipping by rule, offsets in every error.
//!
//! It knows what a snapshot needs of JSON and no more: no fractions, no exponents, no decoding of
//! strings. The end of the text is no error here but [`Cut`], since a truncated file is the normal case.

use memchr::{memchr2, memchr3};

use super::error::Error;

/// Why a scan stopped.
#[derive(Debug)]
pub enum Stop {
    /// The text ended.
    Cut,
    /// The text breaks the format.
    Bad(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Bad(error)
    }
}

/// The result of a scan.
pub type Scan<T> = Result<T, Stop>;

/// A position in the text.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

/// Digits of the longest integer read: 2^53 has 16.
const MAX_DIGITS: usize = 18;

impl<'a> Cursor<'a> {
    /// Starts at byte `at`.
    pub fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    /// The byte offset.
    #[inline]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The byte under the cursor.
    #[inline]
    pub fn peek(&self) -> Scan<u8> {
        self.text.get(self.at).copied().ok_or(Stop::Cut)
    }

    /// Moves over whitespace.
    #[inline]
    pub fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    /// Moves over whitespace and the byte `wanted`.
    pub fn expect(&mut self, wanted: u8) -> Scan<()> {
        self.skip_space();
        if self.peek()? == wanted {
            self.at += 1;
            return Ok(());
        }
        Err(Error::malformed(self.at, format!("{:?}", char::from(wanted))).into())
    }

    /// Moves over whitespace; if `wanted` follows, moves over it too and answers true.
    pub fn accept(&mut self, wanted: u8) -> Scan<bool> {
        self.skip_space();
        let found = self.peek()? == wanted;
        self.at += usize::from(found);
        Ok(found)
    }

    /// Reads an unsigned integer that starts right here.
    ///
    /// Eight bytes are taken as one word: the first byte that is no digit ends the number, and the digits
    /// before it are folded pairwise with two multiplications (the parse of eight digits at once in
    /// simdjson and fast_float). A number at the very end of the text is `Cut`, for more digits may have followed.
    #[inline(always)]
    pub fn number(&mut self) -> Scan<u64> {
        if let Some(word) = self.text.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            // A digit becomes 0..=9, and adding 0x76 carries into the top bit from 10 on.
            let digits = u64::from_le_bytes(*word) ^ 0x3030_3030_3030_3030;
            let others =
                (digits.wrapping_add(0x7676_7676_7676_7676) | digits) & 0x8080_8080_8080_8080;
            if others != 0 {
                let length = others.trailing_zeros() >> 3;
                if length == 1 {
                    self.at += 1;
                    return Ok(digits & 0xf);
                }
                if length != 0 {
                    self.at += length as usize;
                    return Ok(fold_digits(digits << (64 - 8 * length)));
                }
                return Err(Error::malformed(self.at, "a number").into());
            }
        }
        self.long_number()
    }

    /// [`Cursor::number`] for eight digits and more, and near the end of the text.
    #[cold]
    fn long_number(&mut self) -> Scan<u64> {
        let mut value = 0_u64;
        let mut length = 0;
        loop {
            let Some(&byte) = self.text.get(self.at + length) else { return Err(Stop::Cut) };
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            length += 1;
            if length > MAX_DIGITS {
                return Err(Error::malformed(self.at, "a number below 2^53").into());
            }
            value = value * 10 + u64::from(digit);
        }
        if length == 0 {
            return Err(Error::malformed(self.at, "a number").into());
        }
        self.at += length;
        Ok(value)
    }

    /// After a number: moves over commas and whitespace; false at the array's end, which is passed too.
    #[inline(always)]
    pub fn next_item(&mut self) -> Scan<bool> {
        // The common case by far: one comma, then a digit.
        if let Some(&[b',', b'0'..=b'9']) =
            self.text.get(self.at..).and_then(|rest| rest.first_chunk::<2>())
        {
            self.at += 1;
            return Ok(true);
        }
        self.next_item_slowly()
    }

    fn next_item_slowly(&mut self) -> Scan<bool> {
        loop {
            match self.peek()? {
                b'0'..=b'9' => return Ok(true),
                b',' | b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(false);
                }
                _ => return Err(Error::malformed(self.at, "a number or \"]\"").into()),
            }
        }
    }

    /// Reads a string's raw bytes, without its quotes and with its escapes.
    pub fn string(&mut self) -> Scan<&'a [u8]> {
        self.skip_space();
        if self.peek()? != b'"' {
            return Err(Error::malformed(self.at, "a string").into());
        }
        let start = self.at + 1;
        let end = string_end(self.text, start).ok_or(Stop::Cut)?;
        self.at = end + 1;
        self.text.get(start..end).ok_or(Stop::Cut)
    }

    /// Moves over one value of any kind without looking into it.
    pub fn skip_value(&mut self) -> Scan<()> {
        self.skip_space();
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'[' | b'{' => {
                    depth += 1;
                    self.at += 1;
                }
                b']' | b'}' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b']' | b'}' | b',' | b':' if depth == 0 => {
                    return Err(Error::malformed(self.at, "a value").into());
                }
                _ if depth == 0 => {
                    let rest = &self.text[self.at..];
                    let end = rest.iter().position(|byte| {
                        matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t')
                    });
                    self.at += end.ok_or(Stop::Cut)?;
                }
                _ => {
                    let rest = &self.text[self.at..];
                    let brackets = memchr3(b'"', b']', b'}', rest);
                    let opening = memchr2(b'[', b'{', &rest[..brackets.unwrap_or(rest.len())]);
                    self.at += opening.or(brackets).ok_or(Stop::Cut)?;
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

/// Folds eight decimal digits, the first in the lowest byte, into their value.
#[inline(always)]
fn fold_digits(digits: u64) -> u64 {
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    low.wrapping_add(high) >> 32
}

/// The offset of the quote that ends the string whose first byte is at `start`; `None` when the text ends before.
pub fn string_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text.get(at) == Some(&b'"') {
            return Some(at);
        }
        // A backslash and whatever it escapes.
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_is_what_the_standard_library_reads(value in 0_u64..1 << 53, pad in "[,\\]\n ]{1,9}") {
            let text = format!("{value}{pad}");
            let mut cursor = Cursor::new(text.as_bytes(), 0);
            prop_assert_eq!(cursor.number().ok(), Some(value));
            prop_assert_eq!(cursor.offset(), text.len() - pad.len());
        }

        #[test]
        fn any_bytes_are_skipped_or_refused_without_a_panic(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Cursor::new(&text, 0).skip_value();
            let _ = Cursor::new(&text, 0).number();
            let _ = Cursor::new(&text, 0).string();
        }
    }

    #[test]
    fn a_number_at_the_end_of_the_text_is_cut() {
        assert!(matches!(Cursor::new(b"123", 0).number(), Err(Stop::Cut)));
        assert!(matches!(Cursor::new(b"", 0).number(), Err(Stop::Cut)));
    }

    #[test]
    fn a_number_of_too_many_digits_is_refused_with_its_offset() {
        let text = b"[99999999999999999999999999]";
        match Cursor::new(text, 1).number() {
            Err(Stop::Bad(Error::Malformed { offset, .. })) => assert_eq!(offset, 1),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_skipped_value_ends_where_the_next_begins() {
        for value in [r#"{"a":[1,2,{"b":"]}\""}],"c":null}"#, "[]", "12", "\"a\\\"b\"", "true"] {
            let text = format!("{value},");
            let mut cursor = Cursor::new(text.as_bytes(), 0);
            assert!(cursor.skip_value().is_ok(), "{value}");
            assert_eq!(cursor.offset(), value.len(), "{value}");
        }
    }
}
