//! The one clock: monotonic milliseconds since the guard started in this process, and the wall time they
//! stand for. The wall clock is read when something is written, never to measure.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::sample::Millis;

/// Monotonic time of this process' guard.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at zero now.
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Now.
    pub fn now(self) -> Millis {
        Millis(self.start.elapsed().as_millis() as u64)
    }

    /// The wall time, Unix milliseconds, at which the monotonic clock showed `at`. Reckoned back from now,
    /// so that a correction of the wall clock moves all of history alike.
    pub fn wall_ms(self, at: Millis) -> u64 {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        wall.saturating_sub(self.now().0.saturating_sub(at.0))
    }
}
