//! A JS thread inside a major GC that may be the last of its process. V8 gives up right after it, and where many
//! threads want few cores the native thread would be told of it too late. So the JS thread waits there until the
//! reading has been looked at, and what follows from it is on disk: once for each height that the live heap reaches, and
//! never longer than a reading may stop the loop at all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// From which live heap on one isolate's readings are waited for, and how long.
#[derive(Debug)]
pub struct LastWords {
    from_bytes: AtomicU64,
    /// What has been waited for last.
    waited_bytes: AtomicU64,
    patience_ms: AtomicU64,
}

impl Default for LastWords {
    fn default() -> LastWords {
        LastWords {
            from_bytes: AtomicU64::new(u64::MAX),
            waited_bytes: AtomicU64::new(0),
            patience_ms: AtomicU64::new(0),
        }
    }
}

impl LastWords {
    /// Readings from this live heap on are waited for; `None`: none is. Said by the native thread.
    pub fn expect(&self, from_bytes: Option<f64>, patience_ms: u64) {
        self.patience_ms.store(patience_ms, Ordering::Relaxed);
        self.from_bytes.store(from_bytes.map_or(u64::MAX, |bytes| bytes as u64), Ordering::Relaxed);
    }

    /// How long to wait until a live heap of so many bytes has been looked at; `None` if it is not the last, or not
    /// higher than when it was waited for before. Asked by the JS thread.
    pub fn patience(&self, live_bytes: f64) -> Option<Duration> {
        let live = live_bytes as u64;
        if live < self.from_bytes.load(Ordering::Relaxed) {
            return None;
        }
        let waited = self.waited_bytes.load(Ordering::Relaxed);
        if live <= waited.saturating_add(waited / 64) {
            return None;
        }
        self.waited_bytes.store(live, Ordering::Relaxed);
        let patience_ms = self.patience_ms.load(Ordering::Relaxed);
        (patience_ms > 0).then(|| Duration::from_millis(patience_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1_048_576.0;

    #[test]
    fn each_height_is_waited_for_once_and_what_is_low_never() {
        let words = LastWords::default();
        assert_eq!(words.patience(60.0 * MB), None, "nothing is expected yet");
        words.expect(Some(48.0 * MB), 100);
        let wait = Some(Duration::from_millis(100));
        assert_eq!(words.patience(47.0 * MB), None);
        assert_eq!(words.patience(50.0 * MB), wait);
        // An app that stays there.
        for _ in 0..3 {
            assert_eq!(words.patience(50.5 * MB), None);
        }
        assert_eq!(words.patience(52.0 * MB), wait);
        words.expect(None, 100);
        assert_eq!(words.patience(60.0 * MB), None, "the limit is not known any more");
        words.expect(Some(48.0 * MB), 0);
        assert_eq!(words.patience(60.0 * MB), None, "nothing may stop the loop");
    }
}
