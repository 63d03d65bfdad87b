'use strict';

/**
 * What Linux says of another process, in nanoseconds and bytes. On other systems these throw, and the
 * measurements that need them fail with that sentence.
 */

const fs = require('node:fs');

/**
 * CPU time by thread. `schedstat` counts nanoseconds; `stat` counts ticks of 10 ms, too coarse for an idle
 * process.
 *
 * @param {number} pid
 * @returns {Map<number, { name: string, nanoseconds: number }>} by thread id
 */
function threads(pid) {
  if (process.platform !== 'linux') throw new Error('this measurement reads /proc: Linux only');
  const found = new Map();
  for (const tid of fs.readdirSync(`/proc/${pid}/task`)) {
    try {
      const stat = fs.readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8');
      const name = fs.readFileSync(`/proc/${pid}/task/${tid}/comm`, 'utf8').trim();
      found.set(Number(tid), { name, nanoseconds: Number(stat.split(' ')[0]) });
    } catch {
      // The thread has ended.
    }
  }
  return found;
}

/** @param {number} pid @returns {number} nanoseconds of CPU of the threads that live */
function cpuNanoseconds(pid) {
  let sum = 0;
  for (const { nanoseconds } of threads(pid).values()) sum += nanoseconds;
  return sum;
}

/** @param {number} pid @returns {{ rss: number, anonymous: number }} bytes */
function memory(pid) {
  const status = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
  const of = (/** @type {string} */ field) =>
    Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * 1024;
  return { rss: of('VmRSS'), anonymous: of('RssAnon') };
}

module.exports = { cpuNanoseconds, memory, threads };
