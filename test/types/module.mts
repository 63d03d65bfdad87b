// A strict TypeScript program as an ES module; it is compiled, never run.
import leakguard, { type Finding } from 'leakguard';
import { register as registerInstruments } from 'leakguard/opentelemetry';
import { register } from 'leakguard/prometheus';
import 'leakguard/register';

leakguard.start({ window: '1h' });
const first: Finding | undefined = leakguard.status().findings[0];
console.log(first?.sentence);

const status: leakguard.Status = leakguard.status();
console.log(status.state);

register();
registerInstruments()();
