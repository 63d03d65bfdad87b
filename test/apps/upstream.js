'use strict';

// A service that other programs of test/apps connect to, in a process of its own so that its ends of the
// connections are not counted in theirs. Echoes what it is sent; ends with its parent.

const net = require('node:net');
const { fork } = require('node:child_process');

if (require.main === module) {
  const server = net.createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1', () => {
    const address = server.address();
    if (address !== null && typeof address === 'object') process.send?.({ port: address.port });
  });
  process.once('disconnect', () => process.exit(0));
}

/**
 * Starts the service without the flags of this process, so that no preload runs in it.
 * @returns {Promise<number>} its port
 */
function startUpstream() {
  const env = { ...process.env, NODE_OPTIONS: '' };
  const child = fork(__filename, {
    execArgv: [],
    env,
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  return new Promise((resolve, reject) => {
    child.once('message', (message) => resolve(/** @type {{ port: number }} */ (message).port));
    child.once('error', reject);
  });
}

module.exports = { startUpstream };
