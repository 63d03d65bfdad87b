//! When to read the live heap. A reading is a major GC: it costs CPU on helper threads and, rarely, a stop.
//! This plans within `gcShare` and `maxGcPause`, learns the cost from the readings made, and keeps a
//! reserve for the moments when growth is suspected. Pure: it says when; others do.

use std::collections::VecDeque;
use std::time::Duration;

use crate::sample::Millis;
use crate::stats;

/// Readings remembered for cost and pause.
const REMEMBERED: usize = 8;

/// CPU of a major GC before any was measured: a fixed part and a part per MB of live heap, milliseconds.
/// A forced GC measured 1.45 ms per MB of small objects; marking with helpers costs about as much in sum.
const BASE_COST_MS: f64 = 3.0;
const COST_PER_MB_MS: f64 = 1.5;

/// Share of a forced GC's cost that is pause: all of it.
const FORCED_PAUSE_PER_MB_MS: f64 = 1.45;

/// The reserve, in time of the share: at 0.5 % of a core 6 s of CPU. It pays bursts while growth is
/// suspected; raising it makes more of them, lowering it delays fast leaks on large heaps.
const RESERVE_MS: f64 = 1_200_000.0;

/// Readings that the reserve holds at least, whatever one costs: two evaluations on the shortest window that
/// [`URGENT_SHARE`] fills, and a third more, since a heap that leaks costs more with each reading. With
/// six seconds alone a leak of 1000 MB/h on a heap of 500 MB got five readings, one too few, and then one in three
/// minutes: it was found later than one of 100 MB/h.
const RESERVE_READINGS: f64 = 20.0;

/// Share of a core that readings may take while the reserve pays for them: on a heap of 700 MB one in 5 s.
const URGENT_SHARE: f64 = 0.2;

/// Part of the share that calm readings leave to the reserve until it is full. Without it the calm readings of a
/// large heap take all there is, and what was spent once is never there again.
const TO_RESERVE: f64 = 0.1;

/// Readings that the reserve must hold for a burst to begin: a shorter one says nothing.
const LEAST_BURST: f64 = 10.0;

/// Readings that fill the shortest window: two more than a verdict needs, for those that come late.
const PER_WINDOW: u64 = 8;

/// Readings that fill a window on which growth is suspected, and, where one is cheap, a calm one that is short: one for
/// each cell it is judged by. A slope over 32 s of a live heap that swings by as much as it grows is then known to a
/// seventh, by eight readings to a third.
const PER_DENSE_WINDOW: u64 = 24;

/// Shares that readings may take to be closer than [`PER_WINDOW`] asks, while the reserve pays: of a core by what they
/// cost, of a core by what the model says they cost, and of the loop's time by their stops. On a heap of 8 MB there is
/// one in 1.3 s; from 50 MB on the model alone asks for more than the pace they have anyway, whatever was measured.
const DENSE_SHARE: f64 = 0.05;
const DENSE_MODEL_SHARE: f64 = 0.02;
const DENSE_PAUSE_SHARE: f64 = 0.02;

/// Slowest pace that calm readings are held to, whatever the window. By a memory-pressure notification a reading costs
/// more than its GC: V8 then runs with a small heap and young generation, and a second major GC follows soon. On Node
/// 22, with a live heap of 10 MB, the requests after such a reading paid 85 ms of CPU for it; by external memory, 2 ms.
/// Raising this delays the middle rungs; lowering it costs CPU a request. Faster leaks are left to suspicion.
const CALM_PACE_MS: u64 = 60_000;

/// Readings that a hint buys at the fast pace: enough for the shortest window to be judged once with some to
/// spare. If that judgement sees growth, suspicion goes on buying them.
const BURST: f64 = 14.0;

/// After a burst that led to nothing hints are not listened to for so long: resident memory of a healthy app
/// rises and falls all the time.
const BURST_REST_MS: u64 = 600_000;

/// Fastest pace of readings, and of cheap ones.
const MIN_GAP_MS: u64 = 2_000;
const MIN_DENSE_GAP_MS: u64 = 1_000;

/// The golden ratio less one. Its multiples fill the span of a pace most evenly of all numbers, so that the moments of
/// readings meet every phase of whatever the app does at regular times: a batch that is flushed every 4 s, read every
/// 4 s, is seen at a phase that creeps, and that looks like growth.
const GOLDEN: f64 = 0.618_033_988_749_894_8;

/// A reading that has not ended after this is given up (the loop is blocked, or V8 did not finish).
const GIVE_UP_MS: u64 = 20_000;

/// How long readings rest after one stopped the loop for longer than allowed. It doubles with each such stop
/// in a row, up to the longest: a single one may be a busy machine's.
const REST_MS: u64 = 30_000;
const LONGEST_REST_MS: u64 = 30 * 60_000;

/// How the live heap is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// External memory is reported to V8 and taken back at once: V8 starts an incremental, concurrent mark-compact.
    External,
    /// A memory-pressure notification starts an incremental, concurrent mark-compact.
    Pressure,
    /// A forced GC, all of it pause.
    Forced,
    /// Only the major GCs that V8 makes by itself.
    Natural,
}

impl Way {
    /// The word shown in `status()`.
    pub fn as_str(self) -> &'static str {
        match self {
            Way::External => "external",
            Way::Pressure => "pressure",
            Way::Forced => "forced",
            Way::Natural => "natural",
        }
    }
}

/// External memory that is reported to V8 for a moment, so that it starts a major GC, bytes.
///
/// V8: `Heap::ReportExternalMemoryPressure` starts incremental marking, and none that reduces memory, once external
/// memory is `kExternalAllocationSoftLimit`, 64 MB, above its lowest since the last major GC (src/heap/heap.cc in Node
/// 20 and 22; `HandleExternalMemoryInterrupt` and `soft_limit()` in 24 and 26). A little more is always above it.
pub const EXTERNAL_PUSH_BYTES: i64 = 65 * 1_048_576;

/// Heap from which on V8's markers get a head start, bytes. On a smaller one a lost race costs no more than the rests.
const HEAD_START_FROM_BYTES: f64 = 32.0 * 1_048_576.0;

/// The head start: how long the JS thread rests after each of so many turns of the loop, from the turn in which it
/// started a major GC on.
///
/// V8 ends incremental marking as soon as a step of the JS thread finds its worklists empty
/// (`IncrementalMarking::ShouldFinalize`, src/heap/incremental-marking.cc), and what its concurrent markers have taken for
/// themselves does not count. In the first 10 to 25 ms, when only the small part of the heap next to the roots is known,
/// a marker that waits for a core may hold the one object below which the rest lies; the rest is then marked in the stop.
/// With 2 cores and 200 MB that was 8 readings of 25, each a stop of 130 to 200 ms. In the turn of the start a rest adds to
/// what the start takes, 2 to 6 ms, since V8 wakes its markers then: with one of 3 ms there and 2 ms after each of 8 turns
/// that turn was the longest gap of the reading. Rests of 0.5 ms do not do: 1 reading of 8 lost the race.
pub const HEAD_START_REST: Duration = Duration::from_micros(1500);
/// See [`HEAD_START_REST`].
pub const HEAD_START_TURNS: u32 = 14;

/// How long after a reading began V8's own major GCs get the same head start: V8's memory reducer makes one some 12 s
/// after ours if the app hardly allocates (src/heap/memory-reducer.cc), which is our doing then.
pub const HEAD_START_FOLLOWS: Duration = Duration::from_secs(20);

/// Whether a reading of so large a heap begins with a head start ([`HEAD_START_REST`]) for V8's concurrent markers.
pub fn wants_head_start(heap_bytes: f64) -> bool {
    heap_bytes >= HEAD_START_FROM_BYTES
}

/// How much external memory an isolate may have so that [`EXTERNAL_PUSH_BYTES`] on top stays clear of V8's hard limit,
/// bytes; `None` if it may have none. Past that limit V8 collects at once, and the loop stands still.
///
/// V8: the hard limit is half of the old generation's largest size, above the lowest external memory since the last
/// major GC (`external_memory_hard_limit()`). `heap_size_limit` counts the young generation too, whose largest size
/// by default is, by `--max-old-space-size` and what V8 then says of its limit, 48 MB to V8 12 (Node 20 and 22), 192 MB
/// in V8 13 (Node 24) and 96 MB in V8 14 (Node 26). An app that has made it larger may be stopped by one such GC;
/// the plan takes its length for what it is.
///
/// `v8` is `process.versions.v8`.
pub fn external_room_bytes(heap_size_limit: f64, v8: &str) -> Option<i64> {
    let major: Option<u32> = v8.split('.').next().and_then(|major| major.parse().ok());
    let young = if major.is_some_and(|major| major <= 12) { 48.0 } else { 192.0 } * 1_048_576.0;
    let hard = (heap_size_limit - young) / 2.0;
    let room = hard - EXTERNAL_PUSH_BYTES as f64;
    (room > 0.0).then_some(room as i64)
}

/// What is known when a reading is considered.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Heap in use now, garbage included, bytes.
    pub heap_used_bytes: f64,
    /// The last live-heap reading, bytes.
    pub live_bytes: Option<f64>,
    /// Shortest window that is judged, milliseconds.
    pub shortest_window_ms: u64,
    /// The configured window, milliseconds: calm readings are paced to fill it.
    pub window_ms: u64,
    /// Growth that a window must hold, bytes.
    pub amount_bytes: f64,
    /// The shortest window that could confirm growth which was seen already, milliseconds.
    pub suspected_window_ms: Option<u64>,
    /// The shortest window whose slope would be fast enough, were it told from noise, milliseconds: readings tell, where
    /// they are cheap.
    pub doubted_window_ms: Option<u64>,
    /// Whether resident memory hints at fast growth: worth a bounded burst of readings.
    pub hint: bool,
    /// Whether the event loop answers.
    pub responsive: bool,
}

/// Why no reading is made now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wait {
    /// One is under way.
    Pending,
    /// The next is due later.
    NotDue,
    /// Nothing was allocated that could have grown the live heap.
    Idle,
    /// The share is spent until later.
    Share,
    /// The predicted stop exceeds the limit.
    Pause {
        /// Predicted stop, milliseconds.
        predicted_ms: f64,
    },
    /// The way in use makes no readings on demand, or the loop does not answer.
    Unable,
}

/// The plan for one isolate.
#[derive(Clone, Debug)]
pub struct ReadingPlan {
    way: Way,
    share: f64,
    max_pause_ms: f64,
    costs: VecDeque<f64>,
    pauses: VecDeque<f64>,
    reserve_ms: f64,
    refilled: Millis,
    asked: Option<Millis>,
    /// When the last reading was due, or a natural one came: what the next is due by. Not when it was asked for, so that
    /// the ticks which find it due do not put the others off. Before the first, when the plan began: see [`ReadingPlan::new`].
    last: Millis,
    /// Where in the span of its pace the last reading was due, 0 to 1.
    phase: f64,
    rest_until: Millis,
    long_stops: u32,
    /// What is left of the burst under way, in readings at the fast pace, and when the next burst may begin.
    burst_left: f64,
    next_burst: Millis,
    /// Readings that never came back.
    lost: u64,
    made: u64,
    spent_ms: f64,
}

impl ReadingPlan {
    /// A plan with a full reserve, whose first reading is due a pace from now, as if one had just been made.
    ///
    /// A major GC in an app that has started and not yet served leaves it slower once it serves: asked for one second after
    /// the start it cost an Express app 1.2 % more CPU a request for as long as was looked (the first 32,000 requests, Node 22).
    /// V8's own, once it serves, do not.
    pub fn new(way: Way, share: f64, max_pause_ms: u64, now: Millis) -> ReadingPlan {
        ReadingPlan {
            way,
            share,
            max_pause_ms: max_pause_ms as f64,
            costs: VecDeque::new(),
            pauses: VecDeque::new(),
            // Full, be what a reading costs what it may.
            reserve_ms: f64::INFINITY,
            refilled: now,
            asked: None,
            last: now,
            phase: 0.0,
            rest_until: Millis(0),
            long_stops: 0,
            burst_left: 0.0,
            next_burst: Millis(0),
            lost: 0,
            made: 0,
            spent_ms: 0.0,
        }
    }

    /// Asks for a reading if one is due. `Ok` counts it as under way.
    pub fn step(&mut self, now: Millis, situation: &Situation) -> Result<(), Wait> {
        let live_mb =
            situation.live_bytes.unwrap_or(situation.heap_used_bytes).max(0.0) / 1_048_576.0;
        let cost = self.predicted_cost_ms(live_mb);
        let elapsed = now.0.saturating_sub(self.refilled.0) as f64;
        let full = (self.share * RESERVE_MS).max(RESERVE_READINGS * cost);
        self.reserve_ms = (self.reserve_ms + elapsed * self.share).min(full);
        self.refilled = now;
        if let Some(asked) = self.asked {
            if now.0 < asked.0 + GIVE_UP_MS {
                return Err(Wait::Pending);
            }
            self.asked = None;
            self.lost += 1;
        }
        if self.way == Way::Natural || !situation.responsive {
            return Err(Wait::Unable);
        }
        let affordable = self.reserve_ms >= LEAST_BURST * cost;
        if situation.hint && affordable && self.burst_left <= 0.0 && now >= self.next_burst {
            self.burst_left = BURST;
        }
        let dense = (cost / DENSE_SHARE)
            .max(model_cost_ms(live_mb) / DENSE_MODEL_SHARE)
            .max(self.predicted_pause_ms(live_mb) / DENSE_PAUSE_SHARE);
        // A window too short for so many is filled as if they were dear.
        let dense = |window: u64| match window / PER_DENSE_WINDOW {
            pace if pace < MIN_DENSE_GAP_MS => u64::MAX,
            pace => pace.max(dense as u64),
        };
        let sparse_pace = (situation.window_ms / PER_WINDOW).clamp(MIN_GAP_MS, CALM_PACE_MS);
        let calm_pace = dense(situation.window_ms).min(sparse_pace);
        let fastest = (situation.shortest_window_ms / PER_WINDOW)
            .max(MIN_GAP_MS)
            .max((cost / URGENT_SHARE) as u64);
        let cheap = dense(situation.shortest_window_ms) < fastest;
        let doubted = situation.doubted_window_ms.filter(|_| cheap);
        let suspected = situation.suspected_window_ms.or(doubted);
        let urgent = suspected.is_some() || self.burst_left > 0.0;
        let wanted = match suspected {
            _ if self.burst_left > 0.0 => fastest.min(dense(situation.shortest_window_ms)),
            // Oftener than fills the window would spend the reserve on nothing.
            Some(window) => {
                (window / PER_DENSE_WINDOW).max(fastest.min(dense(window))).min(calm_pace)
            }
            None => calm_pace,
        };
        // Each in a span of its own, at a place of its own in it.
        let next_phase = (self.phase + GOLDEN).fract();
        // Where a reading is dear few of them fill a window, and none is to come late.
        let stride = if cheap { 1.0 + next_phase - self.phase } else { 1.0 };
        let due = |gap: f64| Millis(self.last.0 + (gap * stride) as u64);
        let is_due = |gap: f64| now >= due(gap);
        if !is_due(wanted as f64) {
            return Err(Wait::NotDue);
        }
        if let Some(live) = situation.live_bytes {
            // The live heap cannot have grown by more than what is in use above it.
            let grain = (situation.amount_bytes / 16.0).clamp(32.0 * 1024.0, 1024.0 * 1024.0);
            if situation.heap_used_bytes < live + grain {
                return Err(Wait::Idle);
            }
        }
        let predicted_ms = self.predicted_pause_ms(live_mb);
        // What is not forced may be tried again after its rest: with no reading there would be no other
        // figure, and the prediction would stand for ever.
        let too_long = self.way == Way::Forced && predicted_ms > self.max_pause_ms;
        if too_long || now < self.rest_until {
            return Err(Wait::Pause { predicted_ms });
        }
        let calm_share = self.share * if self.reserve_ms < full { 1.0 - TO_RESERVE } else { 1.0 };
        let calm_gap = cost / calm_share;
        // In calm times the share of the moment pays; the reserve is touched only on suspicion.
        let gap = match is_due(calm_gap) {
            true => calm_gap.max(wanted as f64),
            // Nor is the first put off by what it costs.
            false if (urgent || self.made == 0) && self.reserve_ms >= cost => wanted as f64,
            false => return Err(Wait::Share),
        };
        self.asked = Some(now);
        // Less than a pace late is on time; more, and the moments are counted from now.
        let on_time = cheap && now.0 < due(gap).0 + gap as u64;
        self.last = if on_time { due(gap) } else { now };
        self.phase = next_phase;
        if self.burst_left > 0.0 {
            // Closer ones make it no shorter.
            self.burst_left -= (wanted as f64 / fastest as f64).min(1.0);
            self.next_burst = Millis(now.0 + BURST_REST_MS);
        }
        Ok(())
    }

    /// A major GC has ended: one that was asked for, with its CPU cost where that could be measured, or a
    /// natural one, which is free.
    pub fn ended(&mut self, now: Millis, pause_ms: f64, cost_ms: Option<f64>, live_bytes: f64) {
        let asked = self.asked.take().is_some();
        if !asked {
            self.last = now;
        }
        self.made += 1;
        remember(&mut self.pauses, pause_ms);
        if pause_ms > self.max_pause_ms && asked {
            let rest_ms = REST_MS.saturating_mul(1 << self.long_stops.min(16));
            self.rest_until = Millis(now.0 + rest_ms.min(LONGEST_REST_MS));
            self.long_stops = self.long_stops.saturating_add(1);
        } else {
            self.long_stops = 0;
        }
        if asked {
            let model = model_cost_ms(live_bytes / 1_048_576.0);
            // CPU of the whole process is measured, and the app works meanwhile: bounded by the model.
            let cost = cost_ms
                .unwrap_or(model)
                .clamp(pause_ms.max(model / 3.0), (3.0 * model).max(pause_ms));
            remember(&mut self.costs, cost);
            self.reserve_ms -= cost;
            self.spent_ms += cost;
        }
    }

    /// Whether a reading is under way.
    pub fn pending(&self) -> bool {
        self.asked.is_some()
    }

    /// Gives up a reading that could not even be asked for.
    pub fn cancel(&mut self) {
        self.asked = None;
    }

    /// The way in use.
    pub fn way(&self) -> Way {
        self.way
    }

    /// New limits, same memory of costs.
    pub fn configure(&mut self, way: Way, share: f64, max_pause_ms: u64) {
        self.way = way;
        self.share = share;
        self.max_pause_ms = max_pause_ms as f64;
    }

    /// Readings made, lost, and the CPU they cost in milliseconds.
    pub fn totals(&self) -> (u64, u64, f64) {
        (self.made, self.lost, self.spent_ms)
    }

    /// CPU of the next reading: median of the last ones.
    pub fn predicted_cost_ms(&self, live_mb: f64) -> f64 {
        stats::median(&mut self.costs.iter().copied().collect::<Vec<_>>())
            .unwrap_or_else(|| model_cost_ms(live_mb))
    }

    /// Stop of the next reading: three quarters of the last ones were no longer.
    pub fn predicted_pause_ms(&self, live_mb: f64) -> f64 {
        match self.way {
            Way::Forced => FORCED_PAUSE_PER_MB_MS * live_mb,
            _ => stats::quantile(&mut self.pauses.iter().copied().collect::<Vec<_>>(), 0.75)
                .unwrap_or(0.0),
        }
    }
}

fn model_cost_ms(live_mb: f64) -> f64 {
    BASE_COST_MS + COST_PER_MB_MS * live_mb
}

fn remember(ring: &mut VecDeque<f64>, value: f64) {
    if ring.len() == REMEMBERED {
        ring.pop_front();
    }
    ring.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1_048_576.0;

    fn busy(live_mb: f64) -> Situation {
        Situation {
            heap_used_bytes: (live_mb + 20.0) * MB,
            live_bytes: Some(live_mb * MB),
            shortest_window_ms: 30_000,
            window_ms: 6 * 3_600_000,
            amount_bytes: 6.0 * MB,
            suspected_window_ms: None,
            doubted_window_ms: None,
            hint: false,
            responsive: true,
        }
    }

    /// The same with a short window, so that the pace is four seconds.
    fn brisk(live_mb: f64) -> Situation {
        Situation { window_ms: 32_000, ..busy(live_mb) }
    }

    /// Runs the plan for an hour; every reading ends a second later. Returns readings and CPU spent.
    fn hour(
        plan: &mut ReadingPlan,
        situation: &Situation,
        pause_ms: f64,
        cost_ms: f64,
    ) -> (u64, f64) {
        let (mut spent, mut count) = (0.0, 0);
        for second in 0..3600u64 {
            let now = Millis(second * 1000);
            if plan.step(now, situation).is_ok() {
                plan.ended(
                    Millis(now.0 + 900),
                    pause_ms,
                    Some(cost_ms),
                    situation.live_bytes.unwrap_or(0.0),
                );
                spent += cost_ms;
                count += 1;
            }
        }
        (count, spent)
    }

    #[test]
    fn external_memory_is_pushed_only_where_v8_does_not_collect_at_once() {
        const MB: f64 = 1_048_576.0;
        // What Node 20, 22, 24 and 26 say of their limit with --max-old-space-size=64, 128, 256.
        let table = [
            (112.0, "11.3.244.8-node.38", None),
            (176.0, "12.4.254.21-node.33", None),
            (304.0, "12.4.254.21-node.33", Some(63)),
            (256.0, "13.6.233.10-node.28", None),
            (320.0, "13.6.233.10-node.28", None),
            (448.0, "13.6.233.10-node.28", Some(63)),
            (352.0, "14.3.127.1-node.5", Some(15)),
            (4144.0, "not a version", Some(1911)),
            (f64::NAN, "12", None),
        ];
        for (limit, v8, room) in table {
            let found = external_room_bytes(limit * MB, v8).map(|room| room / 1_048_576);
            assert_eq!(found, room, "{limit} MB, V8 {v8}");
        }
    }

    #[test]
    fn calm_readings_keep_within_the_share() {
        for live in [8.0, 64.0, 200.0, 1000.0] {
            let mut plan = ReadingPlan::new(Way::Pressure, 0.005, 100, Millis(0));
            let cost = model_cost_ms(live);
            let (count, spent) = hour(&mut plan, &busy(live), 20.0, cost);
            // One at either end.
            assert!(spent <= 0.005 * 3_600_000.0 + 2.0 * cost, "{live} MB: {spent} ms");
            assert!(count >= 10, "{live} MB: {count}");
        }
    }

    #[test]
    fn suspicion_spends_the_reserve_and_no_more() {
        let mut plan = ReadingPlan::new(Way::Pressure, 0.005, 100, Millis(0));
        let suspicious = Situation { suspected_window_ms: Some(30_000), ..busy(200.0) };
        let (count, spent) = hour(&mut plan, &suspicious, 20.0, 300.0);
        assert!(spent <= 0.005 * (3_600_000.0 + RESERVE_MS) + 300.0, "{spent}");
        let calm = hour(
            &mut ReadingPlan::new(Way::Pressure, 0.005, 100, Millis(0)),
            &busy(200.0),
            20.0,
            300.0,
        );
        assert!(count > calm.0);
    }

    #[test]
    fn calm_readings_of_a_small_heap_are_a_minute_apart_and_fill_a_short_window() {
        let small = busy(8.0);
        let mut plan = ReadingPlan::new(Way::Pressure, 0.005, 100, Millis(0));
        assert_eq!(hour(&mut plan, &small, 5.0, 5.0).0, 59);
        let short = Situation { window_ms: 32_000, ..small };
        let mut plan = ReadingPlan::new(Way::Pressure, 0.05, 100, Millis(0));
        assert!(hour(&mut plan, &short, 5.0, 5.0).0 > 700);
        let suspicious = Situation { suspected_window_ms: Some(30_000), ..small };
        let mut plan = ReadingPlan::new(Way::Pressure, 0.005, 100, Millis(0));
        assert!(hour(&mut plan, &suspicious, 5.0, 5.0).0 > 700);
    }

    /// Moments of an hour's readings, seconds.
    fn moments(situation: &Situation, cost_ms: f64) -> Vec<u64> {
        let mut plan = ReadingPlan::new(Way::External, 0.005, 100, Millis(0));
        let mut at = Vec::new();
        for second in 0..3600u64 {
            let now = Millis(second * 1000);
            if plan.step(now, situation).is_ok() {
                let live = situation.live_bytes.unwrap_or(0.0);
                plan.ended(Millis(now.0 + 300), 1.0, Some(cost_ms), live);
                at.push(second);
            }
        }
        at
    }

    #[test]
    fn readings_meet_every_phase_of_what_the_app_does_at_regular_times() {
        for (situation, cost_ms) in [(brisk(8.0), 15.0), (busy(32.0), 51.0)] {
            let at = moments(&situation, cost_ms);
            let pace = 3600 / at.len() as u64;
            for period in [pace, 2 * pace, 3 * pace, pace + 1, 4 * pace] {
                for third in 0..3 {
                    let met = at.iter().filter(|&second| second % period * 3 / period == third);
                    let share = met.count() as f64 / at.len() as f64;
                    // A second is the tick's grain: of a period of four one third is two of its seconds.
                    let seconds = (0..period).filter(|second| second * 3 / period == third).count();
                    let expected = seconds as f64 / period as f64;
                    assert!((share - expected).abs() < 0.1, "{period} s: {share} of {expected}");
                }
            }
        }
    }

    #[test]
    fn cheap_readings_fill_every_cell_of_a_suspected_window_and_dear_ones_come_no_oftener_than_before()
     {
        let suspicious = |live: f64| Situation { suspected_window_ms: Some(30_000), ..busy(live) };
        let minute = |live: f64, cost_ms: f64| {
            moments(&suspicious(live), cost_ms).iter().filter(|&&second| second < 60).count()
        };
        let (cheap, dear) = (minute(8.0, 10.0), minute(200.0, 300.0));
        assert!((36..=50).contains(&cheap), "{cheap}");
        assert!((14..=18).contains(&dear), "{dear}");
    }

    #[test]
    fn a_hint_buys_one_burst_and_then_rests() {
        let hinted = Situation { hint: true, ..busy(8.0) };
        let mut plan = ReadingPlan::new(Way::Pressure, 0.005, 100, Millis(0));
        let mut at = Vec::new();
        for second in 0..1200u64 {
            let now = Millis(second * 1000);
            if plan.step(now, &hinted).is_ok() {
                plan.ended(Millis(now.0 + 900), 5.0, Some(15.0), 8.0 * MB);
                at.push(second);
            }
        }
        let fast =
            |from: u64, to: u64| at.iter().filter(|&&second| second >= from && second < to).count();
        // Where readings are cheap three take the place of one.
        let whole = 3 * BURST as usize;
        assert!((whole - 6..=whole + 2).contains(&fast(0, 60)), "{at:?}");
        assert!(fast(60, 600) <= 10, "{at:?}");
        assert!(fast(600, 720) >= whole - 6, "{at:?}");
    }

    #[test]
    fn a_burst_on_a_large_heap_is_whole_however_much_a_reading_costs() {
        for live in [500.0, 2000.0] {
            let hinted = Situation { hint: true, ..busy(live) };
            let (mut plan, cost) =
                (ReadingPlan::new(Way::Pressure, 0.005, 100, Millis(0)), model_cost_ms(live));
            let mut at = Vec::new();
            for second in 0..3600u64 {
                let now = Millis(second * 1000);
                if plan.step(now, &hinted).is_ok() {
                    plan.ended(Millis(now.0 + 900), 20.0, Some(cost), live * MB);
                    at.push(second);
                }
            }
            // A pace of it goes by before the first, and each waits for its tick.
            let lasts = ((BURST + 1.0) * cost / URGENT_SHARE / 1000.0 + BURST) as u64;
            let burst = at.iter().filter(|&&second| second < lasts).count();
            assert_eq!(burst, BURST as usize, "{at:?}");
            // And what was spent is earned again before the next.
            let spent = at.len() as f64 * cost;
            assert!(spent <= 0.005 * 3_600_000.0 + RESERVE_READINGS * cost, "{live} MB: {spent}");
        }
    }

    #[test]
    fn suspicion_of_a_slow_leak_does_not_hurry() {
        let slow = Situation { suspected_window_ms: Some(6 * 3_600_000), ..busy(64.0) };
        let mut plan = ReadingPlan::new(Way::Pressure, 0.005, 100, Millis(0));
        assert_eq!(hour(&mut plan, &slow, 5.0, 99.0).0, 59);
        let medium = Situation { suspected_window_ms: Some(270_000), ..busy(64.0) };
        let mut plan = ReadingPlan::new(Way::Pressure, 0.005, 100, Millis(0));
        assert!(hour(&mut plan, &medium, 5.0, 20.0).0 > 200);
    }

    #[test]
    fn a_window_too_short_for_so_many_readings_is_filled_as_if_they_were_dear() {
        let short = Situation { window_ms: 10_000, shortest_window_ms: 10_000, ..busy(8.0) };
        let suspicious = Situation { suspected_window_ms: Some(10_000), ..short };
        for situation in [short, suspicious, Situation { hint: true, ..short }] {
            let within = moments(&situation, 5.0).iter().filter(|&&second| second < 20).count();
            assert!(within <= 10, "{within}");
        }
    }

    #[test]
    fn a_doubt_buys_cheap_readings_and_no_dear_ones() {
        let minutes = |live: f64, cost_ms: f64| {
            let doubtful = Situation { doubted_window_ms: Some(30_000), ..busy(live) };
            let within = |of: &Situation| {
                moments(of, cost_ms).iter().filter(|&&second| second < 300).count()
            };
            (within(&doubtful), within(&busy(live)))
        };
        let (cheap, calm) = minutes(8.0, 10.0);
        assert!(cheap > 20 * calm, "{cheap} {calm}");
        let (dear, calm) = minutes(200.0, 300.0);
        assert_eq!(dear, calm);
    }

    #[test]
    fn an_app_that_has_just_started_is_read_a_pace_later() {
        let hinted = Situation { hint: true, ..busy(20.0) };
        for (situation, pace_s) in
            [(busy(20.0), 60), (busy(500.0), 60), (brisk(20.0), 4), (hinted, 3)]
        {
            let started = Situation { live_bytes: None, ..situation };
            let mut plan = ReadingPlan::new(Way::External, 0.005, 100, Millis(0));
            let first = (0..200u64).find(|at| plan.step(Millis(at * 1000), &started).is_ok());
            let first = first.expect("a reading");
            assert!((pace_s..=2 * pace_s).contains(&first), "{first} s");
        }
    }

    #[test]
    fn an_idle_app_is_left_alone() {
        let mut plan = ReadingPlan::new(Way::Pressure, 0.005, 100, Millis(0));
        let idle =
            Situation { heap_used_bytes: 10.1 * MB, live_bytes: Some(10.0 * MB), ..busy(10.0) };
        assert_eq!(plan.step(Millis(120_000), &idle), Err(Wait::Idle));
    }

    #[test]
    fn a_forced_gc_that_would_stop_too_long_is_refused_with_its_prediction() {
        let mut plan = ReadingPlan::new(Way::Forced, 0.05, 100, Millis(0));
        let now = Millis(120_000);
        assert_eq!(plan.step(now, &busy(200.0)), Err(Wait::Pause { predicted_ms: 290.0 }));
        assert_eq!(plan.step(now, &busy(20.0)), Ok(()));
    }

    #[test]
    fn one_long_stop_rests_the_readings_and_does_not_end_them() {
        let mut plan = ReadingPlan::new(Way::Pressure, 0.005, 100, Millis(0));
        assert_eq!(plan.step(Millis(100_000), &busy(20.0)), Ok(()));
        plan.ended(Millis(101_000), 300.0, Some(30.0), 20.0 * MB);
        assert!(matches!(plan.step(Millis(120_000), &brisk(20.0)), Err(Wait::Pause { .. })));
        plan.ended(Millis(300_000), 20.0, None, 20.0 * MB);
        plan.ended(Millis(350_000), 20.0, None, 20.0 * MB);
        plan.ended(Millis(360_000), 20.0, None, 20.0 * MB);
        assert_eq!(plan.step(Millis(500_000), &busy(20.0)), Ok(()));
    }

    #[test]
    fn long_stops_are_tried_again_ever_more_rarely_though_no_natural_gc_comes() {
        let mut plan = ReadingPlan::new(Way::Pressure, 0.05, 100, Millis(0));
        let tries: Vec<u64> = (0..7200u64)
            .filter(|second| {
                let now = Millis(second * 1000);
                let tried = plan.step(now, &brisk(60.0)).is_ok();
                if tried {
                    plan.ended(now, 165.0, Some(165.0), 60.0 * MB);
                }
                tried
            })
            .collect();
        assert_eq!(tries, [4, 34, 94, 214, 454, 934, 1894, 3694, 5494]);
    }

    #[test]
    fn a_reading_that_never_ends_is_given_up_and_counted() {
        let mut plan = ReadingPlan::new(Way::Pressure, 0.005, 100, Millis(0));
        assert_eq!(plan.step(Millis(100_000), &busy(20.0)), Ok(()));
        assert_eq!(plan.step(Millis(105_000), &busy(20.0)), Err(Wait::Pending));
        assert_eq!(plan.step(Millis(125_000), &busy(20.0)), Err(Wait::NotDue));
        assert_eq!(plan.totals().1, 1);
        assert_eq!(plan.step(Millis(200_000), &busy(20.0)), Ok(()));
    }

    #[test]
    fn natural_readings_are_free_and_count() {
        let mut plan = ReadingPlan::new(Way::Natural, 0.005, 100, Millis(0));
        assert_eq!(plan.step(Millis(0), &busy(20.0)), Err(Wait::Unable));
        plan.ended(Millis(1000), 5.0, None, 20.0 * MB);
        assert_eq!(plan.totals(), (1, 0, 0.0));
    }
}
