'use strict';

/**
 * Requests of the native thread, one bit each: the same numbers as `mailbox::work` in src/mailbox.rs.
 */
module.exports = Object.freeze({
  HEAP: 1,
  HEAP_AFTER_GC: 1 << 1,
  TIMERS: 1 << 2,
  LISTENERS: 1 << 3,
  // 1 << 4 and 1 << 12 start a major GC and are done natively.
  OBSERVE_MAJOR: 1 << 5,
  FORCE_GC: 1 << 6,
  SNAPSHOT: 1 << 7,
  EVENTS: 1 << 8,
  PROFILE: 1 << 9,
  PAGE: 1 << 10,
  ROUTES: 1 << 11,
  HEAD_START: 1 << 13,
  FAILED: 1 << 14,
});
