// The same guard for `import`. The default export is all there is: its methods belong to it, and a name
// imported alone would be torn off.
import leakguard from './index.js';

export default leakguard;
