'use strict';

// Memory cgroups for tests: real ones, of whichever version the machine has; they take root, or sudo without a
// password.

const fs = require('node:fs');
const path = require('node:path');
const { asRoot, skipWithoutRoot, temporary } = require('./program.js');

let made = 0;

/**
 * A memory cgroup of either version, and a stand-in for node that runs inside it.
 *
 * @param {import('node:test').TestContext} t
 * @param {number} bytes
 * @returns {{ node: string, kills: () => number } | null}
 */
function container(t, bytes) {
  const v1 = fs.existsSync('/sys/fs/cgroup/memory/memory.limit_in_bytes');
  const group = path.join(
    v1 ? '/sys/fs/cgroup/memory' : '/sys/fs/cgroup',
    `leakguard-test-${process.pid}-${bytes}-${made++}`,
  );
  try {
    const limit = v1 ? 'memory.limit_in_bytes' : 'memory.max';
    const enable = v1 ? '' : 'echo +memory > /sys/fs/cgroup/cgroup.subtree_control;';
    asRoot(`${enable} mkdir ${group}; echo ${bytes} > ${group}/${limit}`);
  } catch (error) {
    skipWithoutRoot(t, 'no memory cgroup can be made here', error);
    return null;
  }
  t.after(() => asRoot(`rmdir ${group}`));
  const node = path.join(temporary(t), 'node');
  const sudo = process.getuid?.() === 0 ? '' : 'sudo -n ';
  const join = `${sudo}sh -c "echo $$ > ${group}/cgroup.procs"`;
  fs.writeFileSync(node, `#!/bin/sh -e\n${join}\nexec ${process.execPath} "$@"\n`, { mode: 0o755 });
  const kills = () => {
    const events = fs.readFileSync(
      path.join(group, v1 ? 'memory.oom_control' : 'memory.events'),
      'utf8',
    );
    return Number(events.match(/^oom_kill (\d+)$/m)?.[1] ?? 0);
  };
  return { node, kills };
}

module.exports = { container };
