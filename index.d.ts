/// <reference types="node" />
import { EventEmitter } from 'node:events';
import { IncomingMessage, ServerResponse } from 'node:http';

declare namespace leakguard {
  /** Settings of `start()`; each has a variable of its own (`growthRate`: `LEAKGUARD_GROWTH_RATE`). */
  interface Options {
    // options:begin (made from the option table by `npm run update`)
    /** `off`, `0`, `false`, `no`: loads as an inert object with the same API. Accepted: on or off. Default: `on`. */
    enabled?: boolean | 'on' | 'off';
    /** Where evidence goes. Accepted: a text. Default: `./leakguard`. */
    dir?: string;
    /** Growth of the live heap that counts as a leak. `B KB MB GB` per `s min h d`. Accepted: a growth rate like 10MB/h (B KB MB GB per s min h d). Default: `1MB/h`. */
    growthRate?: string;
    /** Over which that rate is to be told from noise; rate x window is the *amount* (6 MB). Accepted: a duration like 30m (ms s m h d), 10s to 7d. Default: `6h`. */
    window?: string;
    /** Nothing is judged before. Accepted: a duration like 30m (ms s m h d), 0ms to 7d. Default: `10m`. */
    warmup?: string;
    /** Evaluations that must agree, each with at least half a window of new readings. Accepted: a whole number, 1 to 10. Default: `2`. */
    confirm?: number | string;
    /** Process readings. Accepted: a duration like 30m (ms s m h d), 100ms to 1h. Default: `1s`. */
    interval?: string;
    /** Of one core that live-heap readings may cost, helper threads counted. Accepted: a share of one core like 0.5%, 0.01% to 50%. Default: `0.5%`. */
    gcShare?: string;
    /** Longest predicted stop a reading or a profile may cause. Accepted: a duration like 30m (ms s m h d), 1ms to 1m. Default: `100ms`. */
    maxGcPause?: string;
    /** Longest predicted stop that one snapshot may cause. Accepted: a duration like 30m (ms s m h d), 0ms to 1h. Default: `10s`. */
    maxPause?: string;
    /** Growth of listeners on one emitter or EventTarget, or of one line of code over many. Accepted: a rate like 10/min (per s min h d). Default: `10/min`. */
    listenerRate?: string;
    /** Growth of fds, libuv handles, threads. Accepted: a rate like 10/min (per s min h d). Default: `10/min`. */
    handleRate?: string;
    /** Growth of external/ArrayBuffer memory and of native memory outside V8. Accepted: a growth rate like 10MB/h (B KB MB GB per s min h d). Default: `10 x growthRate`. */
    nativeRate?: string;
    /** `auto` (forked where a self-test passes, else inline) `inline` `fork` `off`. Accepted: one of auto, inline, fork, off. Default: `auto`. */
    snapshot?: 'auto' | 'inline' | 'fork' | 'off';
    /** A second snapshot this long after the first of a finding, if growth goes on: the pair to compare. `off`. Accepted: a duration like 30m (ms s m h d), 1s to 7d, or off. Default: `30m`. */
    followup?: string;
    /** Also one at the end of the warm-up. Accepted: on or off. Default: `off`. */
    baseline?: boolean | 'on' | 'off';
    /** In any 24 h, per directory, counted across restarts and processes. Accepted: a whole number, 0 to 1000. Default: `4`. */
    maxSnapshots?: number | string;
    /** Quota of the directory; oldest go first, a baseline and the newest stay. Accepted: a size like 512MB (B KB MB GB), at least 1.0 MB. Default: `512MB`. */
    maxDisk?: string;
    /** Silence after a finding, per series and cause. Accepted: a duration like 30m (ms s m h d), 0ms to 30d. Default: `6h`. */
    cooldown?: string;
    /** `none` `gzip` `zstd`. Accepted: one of none, gzip, zstd. Default: `none`. */
    compress?: 'none' | 'gzip' | 'zstd';
    /** What snapshots are written without: `none` `strings` (texts) `keys` (property names too). Accepted: one of none, strings, keys. Default: `none`. */
    redact?: 'none' | 'strings' | 'keys';
    /** Sampling allocation profile once a suspicion stands: `auto` `off`. Accepted: one of auto, off. Default: `auto`. */
    profile?: 'auto' | 'off';
    /** Analysis of a new snapshot in a separate low-priority process: `auto` `off`. Accepted: one of auto, off. Default: `auto`. */
    analyze?: 'auto' | 'off';
    /** `off`: EventEmitter is left untouched. Accepted: on or off. Default: `on`. */
    listeners?: boolean | 'on' | 'off';
    /** Requests are counted by route, to say which route's traffic growth goes with. `off`: nothing is counted. Accepted: on or off. Default: `on`. */
    routes?: boolean | 'on' | 'off';
    /** A signal name (`SIGUSR2`): snapshot on demand. Accepted: a signal name like SIGUSR2, or off. Default: `off`. */
    signal?: string;
    /** Command run, without a shell, for each new evidence file. Accepted: a program and its arguments separated by blanks, double quotes around blanks, or off. Default: `off`. */
    hook?: string;
    /** What the status page asks for; without it the page is 404. Accepted: at least 16 visible ASCII characters without blanks, or off. Default: `off`. */
    token?: string;
    /** What runs are keyed by. Accepted: a text. Default: `name and version of the nearest package.json`. */
    app?: string;
    /** `silent` `warn` `info` `debug`: findings and refusals, one line each on stderr. Accepted: one of silent, warn, info, debug. Default: `warn`. */
    log?: 'silent' | 'warn' | 'info' | 'debug';
    /** Ways of knowing the live heap that are not to be used, for a runtime on which one of them misbehaves. Accepted: none, or some of external, pressure, epilogue, gc separated by commas. Default: `none`. */
    without?: string;
    // options:end
  }

  /** The ids of series: the same in findings, status, files and metrics. */
  type SeriesId =
    | 'live_heap'
    | 'array_buffers'
    | 'external'
    | 'native'
    | 'rss'
    | 'fds'
    | 'handles'
    | 'timers'
    | 'threads'
    | 'listeners'
    | 'heap_used'
    | 'heap_total'
    | 'cgroup_used'
    | 'loop_utilization';

  type Unit = 'bytes' | 'count' | 'ratio';

  /** A place in the app's code; line and column count from 1. */
  interface Site {
    function: string;
    file: string;
    line: number;
    column: number;
  }

  /** Listeners of one event on one emitter, or of one line of code spread over many emitters. */
  interface ListenerLine {
    /** Class of the emitter, or the name given to `watch`. */
    emitter: string;
    /** `*` for a line that adds for several events. */
    event: string;
    /** Whether they are spread over many emitters, a few on each; the count is an estimate from samples then. */
    spread: boolean;
    count: number;
    growthPerMin: number;
    site: Site | null;
  }

  /** What leaks, as far as it is known without a snapshot. */
  interface Cause {
    /** `listeners`, `timers`, `fds`, `handles`, `threads`; `memory`, or `allocation` once a profile names the line. */
    kind: string;
    emitter?: string;
    event?: string;
    spread?: boolean;
    count?: number;
    perMinute?: number;
    site?: Site | null;
    series?: SeriesId;
    /** Who allocates what grows, where the cause is another one; of an `allocation` these are its own fields. */
    allocation?: Allocation;
    via?: string | null;
    share?: number;
    bytesPerHour?: number;
    bytes?: number;
    sampledGrowthBytes?: number;
    samples?: number;
    windowMs?: number;
    stack?: Site[];
  }

  /** Who allocates what grows, as the sampling allocation profile saw it between two readings. */
  interface Allocation {
    /** The app's function nearest to the allocation, and where it begins. */
    site: Site;
    /** What it called that allocates, where that is not its own code: `body-parser/read`. */
    via: string | null;
    /** Of the growth sampled, 0 to 1. */
    share: number;
    bytesPerHour: number;
    bytes: number;
    sampledGrowthBytes: number;
    samples: number;
    windowMs: number;
    /** App functions on its heaviest stack, the allocating one first. */
    stack: Site[];
  }

  /** Requests of one route: `GET /users/:id`, as the app wrote it. */
  interface RouteTraffic {
    route: string;
    requests: number;
    requestsPerSecond: number;
  }

  /** What a route has to do with growth. */
  interface GuiltyRoute extends RouteTraffic {
    /** Growth for each of its requests. */
    bytesPerRequest: number;
    /** Of the growth that is explained, 0 to 1. */
    share: number;
    /** Correlation of its requests with the growth, both without their straight line over time. */
    r: number;
    /** Weight among everything that could stand in its place, 0 to 1. */
    certainty: number;
  }

  /** Which requests growth goes with. */
  interface RouteFinding {
    series: SeriesId;
    /** Readings that were compared with requests, and the time that they span. */
    readings: number;
    overMs: number;
    requests: number;
    requestsPerSecond: number;
    /** Growth per request of any route; null if it goes with time. */
    bytesPerRequest: number | null;
    /** `one_of`: with one of these, whose traffic does not tell them apart. `traffic`: with all requests alike. */
    verdict: 'routes' | 'one_of' | 'traffic' | 'time' | 'undecided';
    /** The routes that the verdict names, the first one most; else empty. */
    with: GuiltyRoute[];
    /** Routes with most requests. */
    traffic: RouteTraffic[];
  }

  /** Requests of an isolate so far. */
  interface TrafficStatus {
    /** Routes that are told apart. */
    routes: number;
    requests: number;
    requestsPerSecond: number;
    top: RouteTraffic[];
  }

  /** One series of a finding. Values and slopes are in its unit. */
  interface FindingSeries {
    id: SeriesId;
    isolate: number | null;
    emitter: string | null;
    unit: Unit;
    confirmed: boolean;
    slopePerHour: number;
    /** The slopes between which the true one lies with nine in ten. */
    slopeBetween: [number, number];
    laterSlopePerHour: number;
    /** The stretch that all these numbers are of, which ends with `until`. */
    windowMs: number;
    until: string;
    readings: number;
    evaluations: number;
    firstValue: number;
    lastValue: number;
    since: string;
    fromStart: boolean;
    /** By which factor the load rose over the window. */
    loadFactor: number;
    /** What the guard itself added within the window: in the points, and in none of the other numbers. */
    guardBytes: number;
    pValue: number;
    confidence: number;
    threshold: { ratePerHour: number; amount: number };
    /** Of `native` under glibc: what malloc says to its growth. */
    malloc: Malloc | null;
    /** Time as Unix milliseconds. */
    points: [ms: number, value: number][];
  }

  /** What native memory that grows is, by malloc's own account over the window; bytes, V8's buffers not counted. */
  interface Malloc {
    /** `leak`: handed out and not freed; `cache`: kept after a peak; `mapped`: not malloc's. */
    kind: 'leak' | 'fragmentation' | 'cache' | 'mapped';
    grownBytes: number;
    usedBytes: number;
    usedGrownBytes: number;
    usedHighestBytes: number;
    freeBytes: number;
    freeGrownBytes: number;
  }

  /** A step of evidence. */
  interface EvidenceStep {
    kind: 'snapshot' | 'followup' | 'profile' | 'profile_at_limit' | 'analysis';
    state: 'written' | 'refused' | 'pending' | 'failed';
    file?: string;
    reason?: RefusalReason;
    sentence: string;
    numbers?: Record<string, unknown>;
  }

  /** A limit that is about to be reached. */
  interface NearLimit {
    /** `V8 heap limit` or `container limit`. */
    limit: string;
    /** Live heap after a major GC, or what the container is charged. */
    usedBytes: number;
    /** The limit; of V8's heap its old space. */
    bytes: number;
    /** Time left at the rate of the last readings; null if they do not rise. */
    leftMs: number | null;
    /** For how long the event loop had not answered. */
    loopSilentMs: number;
  }

  /** Content of a `Finding.*.json` file. */
  interface Finding {
    schema: 1;
    kind: 'finding';
    id: string;
    time: string;
    pid: number;
    tid: number;
    app: { name: string; version: string; key: string };
    node: string;
    v8: string;
    leakguard: string;
    platform: string;
    processAgeMs: number;
    sentence: string;
    cause: Cause;
    series: FindingSeries[];
    listeners: ListenerLine[];
    /** Which requests the growth goes with; null where none were counted, or the series is not of memory inside V8. */
    routes: RouteFinding | null;
    handles: Record<string, number>;
    fds: { kind: string; count: number; examples: { what: string; count: number }[] }[];
    threads: { name: string; count: number }[];
    context: Partial<Record<SeriesId, number>>;
    limits: Record<string, number>;
    timeToLimit: { ms: number; limit: string; bytes: number } | null;
    /** The limit that was about to be reached when the finding was opened or later; such a finding knows no cooldown. */
    nearLimit: NearLimit | null;
    settings: Record<string, Setting>;
    evidence: EvidenceStep[];
    pair: string | null;
    /** What its snapshot says, or both of them compared; null before. */
    analysis: Analysis | null;
    /** For growth found across runs: those runs, oldest first. Empty otherwise. */
    runs: RunSummary[];
    /** How the run ended that made it; added by a later run, if it ended before its evidence was complete. */
    postmortem?: Omit<RunSummary, 'findings'> & PostmortemVerdict;
    /** Where the file lies; absent if it could not be written. */
    path?: string;
  }

  /** A place where a snapshot holds many alike. */
  interface Suspect {
    /** All of it in words. */
    sentence: string;
    pattern: string;
    /** Variable and properties that hold the items: `cache`, `config._events.reload`. */
    holder: string | null;
    /** A function that sees that variable. */
    site: Site | null;
    /** Places the items come from, the app's own first; a count of 0: it is known only that such items are made there. */
    itemSites: { site: Site; count: number }[];
    itemClass: string;
    count: number;
    retainedBytes: number;
    /** Of the heap, 0 to 1. */
    share: number;
    /** The shortest retaining path to one of the items, from the root, one line each step. */
    path: string[];
  }

  /** What the analysis of a snapshot says. Its texts come from the heap of the app. */
  interface Analysis {
    /** The snapshot's file. */
    file: string;
    /** The earlier snapshot that it was compared with: then the suspects are what grew. */
    against: string | null;
    /** The leading suspect, or that there is none. */
    sentence: string;
    /** The first three. */
    suspects: Suspect[];
    /** What the snapshot says about the finding, in words. */
    verdict: string | null;
    tookMs: number;
    peakMemoryBytes: number | null;
  }

  /** A snapshot that was analysed in a process of its own. */
  interface AnalysisEvent extends Analysis {
    schema: 1;
    /** Of the snapshot. */
    path: string;
    /** Id of the finding that it belongs to. */
    finding: string | null;
  }

  /** The analysis under way. */
  interface AnalyzerStatus {
    running: string | null;
    waiting: number;
    /** Why this process cannot start one. */
    problem: string | null;
  }

  type RefusalReason =
    | 'memory'
    | 'pause'
    | 'heap_limit'
    | 'disk_quota'
    | 'disk_free'
    | 'count'
    | 'cooldown'
    | 'disabled'
    | 'busy'
    | 'unavailable'
    | 'lock_busy'
    | 'state'
    | 'shutting_down'
    | 'no_growth'
    | 'failed';

  /** Why something was not done, in words and numbers. */
  interface Refusal {
    reason: RefusalReason;
    sentence: string;
    unit?: 'bytes' | 'millis' | 'count' | null;
    needed?: number | null;
    available?: number | null;
    sufficient?: number | null;
  }

  /** A refused step, as event. */
  interface RefusedEvent extends Refusal {
    schema: 1;
    kind: 'finding' | 'snapshot' | 'followup' | 'profile' | 'analysis';
    finding: string | null;
  }

  /** Content of a `Snapshot.*.meta` file. */
  interface SnapshotMeta {
    schema: 1;
    file: string;
    complete: true;
    sha256: string;
    bytes: number;
    file_bytes: number;
    compression: 'none' | 'gzip' | 'zstd';
    mode: 'inline' | 'fork';
    reason: string;
    note: string | null;
    pair_id: string | null;
    node_ids_comparable: boolean;
    pid: number;
    tid: number;
    node_version: string;
    heap_bytes: number;
    redaction: 'none' | 'strings' | 'keys';
    started: string;
    ended: string;
  }

  /** An allocation profile that was read: it completes its finding, whose sentence and cause these are now. */
  interface ProfileEvent {
    schema: 1;
    /** Null if the file was refused. */
    path: string | null;
    file: string | null;
    finding: string;
    sentence: string;
    cause: Cause;
    numbers: Record<string, number>;
  }

  /** New readings tell which requests a finding's growth goes with: it came before they could. */
  interface RoutesEvent {
    schema: 1;
    /** The finding's file, which holds the same; null if it could not be written. */
    path: string | null;
    finding: string;
    /** The finding's, with what is new. */
    sentence: string;
    routes: RouteFinding;
  }

  /** How a forked snapshot came about. */
  interface ForkReport {
    /** Children that were begun. */
    tries: number;
    /** Times the event loop was stopped for it, and the longest of those. */
    attempts: number;
    pauseMs: number;
    pauseCpuMs: number;
    /** Why earlier children failed. */
    mishaps: string[];
    /** What last kept it from a quiet moment. */
    disturbance: string | null;
  }

  /** A snapshot that was written. */
  interface SnapshotEvent {
    schema: 1;
    path: string;
    file: string;
    finding: string | null;
    reason: string;
    pauseMs: number;
    extraMemoryBytes: number | null;
    /** How the fork went; null if the snapshot was not forked. */
    fork: ForkReport | null;
    meta: SnapshotMeta;
  }

  /** An inline snapshot is about to stop this thread's loop. `ready()` is false until it is written. */
  interface SnapshotStartEvent {
    schema: 1;
    pid: number;
    tid: number;
    predictedPauseMs: number;
  }

  /** Growth of one series over a whole run, in its unit. */
  interface RunGrowth {
    series: SeriesId;
    perHour: number;
    laterPerHour: number;
    overMs: number;
    readings: number;
    first: number;
    last: number;
    pValue: number;
  }

  /** How much of a limit was in use at the end of a run. */
  interface RunUse {
    limit: 'container' | 'heap';
    usedBytes: number;
    limitBytes: number;
    near: boolean;
    /** Rise between two samples at the end, where that alone makes the end near. */
    risingBytes: number | null;
  }

  /** A run that is over. Times are Unix milliseconds. */
  interface RunSummary {
    file: string;
    app: string;
    appVersion: string;
    pid: number;
    startedMs: number;
    endedMs: number;
    /** The mark of an end in order; null if there is none. */
    exit: { code: number | null; reason: 'end' | 'exit' | 'stop' } | null;
    /** Nearest first. */
    uses: RunUse[];
    growth: RunGrowth[];
    findings: string[];
  }

  interface PostmortemVerdict {
    schema: 1;
    /** `failed`: an exit code other than 0. `near_limit`, `cut_off`: no exit, near a limit or not. */
    verdict: 'orderly' | 'failed' | 'near_limit' | 'cut_off';
    sentence: string;
    /** Whether the run had the memory cgroup of this one; null if that is not known. */
    sameContainer: boolean | null;
  }

  /** A run of this app that ended otherwise than in order with code 0; told once, by the next start. */
  interface PostmortemEvent extends RunSummary, PostmortemVerdict {
    /** Paths of its findings that were completed. */
    findingFiles: string[];
  }

  /** The flight recorder of this run. */
  interface RecorderStatus {
    path: string | null;
    fileBytes: number | null;
    problem: string | null;
    samples: number;
    /** Records that could not be written. */
    lost: number;
    medianSampleMicros: number | null;
  }

  interface HookStatus {
    program: string | null;
    running: string | null;
    waiting: number;
    delivered: number;
    failed: number;
    givenUp: number;
  }

  interface Setting {
    value: string;
    origin: 'default' | 'environment' | 'option';
  }

  /** Last value of a series. */
  interface SeriesStatus {
    unit: Unit;
    last: number;
    ageMs?: number;
    growing?: { slopePerHour: number; windowMs: number } | null;
    /** Only of `listeners`: the emitters with most growth. */
    top?: ListenerLine[];
  }

  /** How the live heap is known. */
  interface LiveHeapStatus {
    way: 'external' | 'pressure' | 'forced' | 'natural';
    why: string;
    lastBytes: number | null;
    lastAgeMs: number | null;
    readings: number;
    lost: number;
    cpuMs: number;
    waiting: string | null;
  }

  interface IsolateStatus {
    id: number;
    tid: number;
    heartbeatAgeMs: number;
    stalls: number;
    liveHeap: LiveHeapStatus;
    handles: Record<string, number>;
    series: Partial<Record<SeriesId, SeriesStatus>>;
    /** Null until requests are counted. */
    routes: TrafficStatus | null;
    lostEvents: number;
  }

  /** Everything the guard knows, JSON-safe. */
  interface Status {
    schema: 1;
    version: string;
    state: 'off' | 'starting' | 'warm-up' | 'armed' | 'collecting' | 'stopped' | 'failed';
    failure: string | null;
    uptimeMs: number;
    /** Age of the newest sample: the native thread takes one an interval. */
    sampleAgeMs: number;
    pid: number;
    node: string;
    settings: Record<string, Setting>;
    liveHeap: LiveHeapStatus | null;
    isolates: IsolateStatus[];
    process: { series: Partial<Record<SeriesId, SeriesStatus>>; [figure: string]: unknown };
    directory: string | null;
    directoryProblem: string | null;
    findings: Finding[];
    refusals: RefusedEvent[];
    snapshots: SnapshotEvent[];
    snapshotInProgress: boolean;
    /** The newest last. */
    analyses: AnalysisEvent[];
    analyzer: AnalyzerStatus;
    /** Whether snapshots can be forked in this process; null: not yet tried, or not asked for. */
    fork: { possible: boolean | null; why: string };
    /** null: not yet open; it is after the first sample, when the runs before this one have been looked at. */
    recorder: RecorderStatus | null;
    hook: HookStatus | null;
    /** Runs that this start has looked at, orderly ones too. */
    previousRuns: PostmortemEvent[];
    losses: { readings: number; silenced: number };
    cost: { ticks: number; meanTickMicros: number | null; longestTickMicros: number };
  }

  /** Emitted with a `code` of its own; if nobody listens it is one process warning instead. */
  interface GuardError extends Error {
    code: string;
  }

  interface Events {
    finding: [finding: Finding];
    profile: [profile: ProfileEvent];
    routes: [routes: RoutesEvent];
    snapshotStart: [stop: SnapshotStartEvent];
    snapshot: [snapshot: SnapshotEvent];
    analysis: [analysis: AnalysisEvent];
    refused: [refusal: RefusedEvent];
    postmortem: [run: PostmortemEvent];
    error: [error: GuardError];
  }

  /** The guard of this environment: an EventEmitter, started by `require`. */
  interface Guard extends EventEmitter<Events> {
    /** Starts, or applies options to the running guard and keeps its series. Never throws. */
    start(options?: Options): this;
    /** Stops guarding this environment. Safe twice. */
    stop(): this;
    /** Everything, JSON-safe. */
    status(): Status;
    /** Prometheus text (exposition format 0.0.4, `text/plain; version=0.0.4`). Without a running guard `leakguard_up 0` and why. Never throws. */
    metrics(): string;
    /**
     * Counts the listeners of a target from now on, however few. The target is held weakly.
     * @returns stops that
     * @throws TypeError (`ERR_LEAKGUARD_TARGET`) if it is neither EventEmitter nor EventTarget
     */
    watch(target: EventEmitter | EventTarget, options?: { name?: string }): () => void;
    /**
     * Takes a snapshot if the budgets allow it; the cooldown does not apply. Never rejects. What it settles with, a
     * running guard has told before by its event `snapshot`, `refused` or `error`.
     */
    snapshot(options?: {
      reason?: string;
    }): Promise<{ path: string; meta: SnapshotMeta } | { refused: Refusal }>;
    /**
     * False from just before an inline snapshot stops the loop of any thread of this process until it is written: for
     * a readiness probe. True while the guard is off.
     */
    ready(): boolean;
    /**
     * The status page: middleware for Express 4 and 5 (mount it with `use`), and a plain handler for `node:http` and
     * Fastify. It answers 404 unless `LEAKGUARD_TOKEN` is set, and 401 to who does not know it. Never throws.
     */
    middleware(): (
      request: IncomingMessage,
      response: ServerResponse,
      next?: (error?: unknown) => void,
    ) => void;
    /** Analyzes a snapshot in a process of its own. Rejects with the CLI's message. */
    analyze(file: string, options?: { top?: number }): Promise<unknown>;
    /** Compares two or three snapshots in a process of their own. Rejects with the CLI's message. */
    diff(before: string, after: string, later?: string): Promise<unknown>;
  }
}

declare const leakguard: leakguard.Guard;
export = leakguard;
