require('leakguard');
const { parentPort } = require('node:worker_threads');

const fibonacci = (n) => (n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2));

parentPort.on('message', (n) => parentPort.postMessage(fibonacci(n)));
