// A strict TypeScript program in CommonJS that uses the public API; it is compiled, never run.
import events = require('node:events');
import http = require('node:http');

import leakguard = require('leakguard');
import opentelemetry = require('leakguard/opentelemetry');
import prometheus = require('leakguard/prometheus');

// The peers' own types fit by shape; ours do not need them.
import api = require('@opentelemetry/api');
import client = require('prom-client');

leakguard.start({ growthRate: '10MB/h', window: '1h', dir: './leakguard', listeners: 'on' });
leakguard.stop();

const { schema, state, settings, findings }: leakguard.Status = leakguard.status();
console.log(schema satisfies number, state, settings.growthRate?.value);
for (const { sentence, cause, series, evidence } of findings) {
  console.log(sentence satisfies string, cause?.site?.file, series[0]?.id, evidence[0]?.file);
}

const unwatch: () => void = leakguard.watch(new events.EventEmitter(), { name: 'rooms' });
unwatch();
leakguard.watch(new AbortController().signal)();

leakguard.on('finding', (finding) => console.log(finding.sentence satisfies string));
leakguard.on('error', (error) => console.log(error.message satisfies string));

leakguard.on('snapshotStart', (stop) => console.log(stop.predictedPauseMs satisfies number));

http.createServer(leakguard.middleware());
http.createServer((_request, response) => response.writeHead(leakguard.ready() ? 200 : 503).end());

async function snapshot(): Promise<string> {
  const taken = await leakguard.snapshot({ reason: 'before the deploy' });
  if ('refused' in taken) return 'refused';
  return taken.path;
}
void snapshot();

// @ts-expect-error an option that does not exist
leakguard.start({ growthRates: '1MB/h' });

console.log(leakguard.metrics() satisfies string);
prometheus.register();
prometheus.register(new client.Registry());
const unregister: () => void = opentelemetry.register({ runtime: false });
unregister();
opentelemetry.register({ meterProvider: api.metrics.getMeterProvider() });
