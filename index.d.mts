// The types for `import`: the guard itself, and every type of index.d.ts by its name.
import leakguard from './index.js';

export default leakguard;

export type Allocation = leakguard.Allocation;
export type Cause = leakguard.Cause;
export type Events = leakguard.Events;
export type EvidenceStep = leakguard.EvidenceStep;
export type Finding = leakguard.Finding;
export type FindingSeries = leakguard.FindingSeries;
export type ForkReport = leakguard.ForkReport;
export type Guard = leakguard.Guard;
export type GuardError = leakguard.GuardError;
export type HookStatus = leakguard.HookStatus;
export type IsolateStatus = leakguard.IsolateStatus;
export type ListenerLine = leakguard.ListenerLine;
export type LiveHeapStatus = leakguard.LiveHeapStatus;
export type Options = leakguard.Options;
export type PostmortemEvent = leakguard.PostmortemEvent;
export type PostmortemVerdict = leakguard.PostmortemVerdict;
export type ProfileEvent = leakguard.ProfileEvent;
export type RecorderStatus = leakguard.RecorderStatus;
export type Refusal = leakguard.Refusal;
export type RefusalReason = leakguard.RefusalReason;
export type RefusedEvent = leakguard.RefusedEvent;
export type RunGrowth = leakguard.RunGrowth;
export type RunSummary = leakguard.RunSummary;
export type RunUse = leakguard.RunUse;
export type SeriesId = leakguard.SeriesId;
export type SeriesStatus = leakguard.SeriesStatus;
export type Setting = leakguard.Setting;
export type Site = leakguard.Site;
export type SnapshotEvent = leakguard.SnapshotEvent;
export type SnapshotMeta = leakguard.SnapshotMeta;
export type SnapshotStartEvent = leakguard.SnapshotStartEvent;
export type Status = leakguard.Status;
export type Unit = leakguard.Unit;
