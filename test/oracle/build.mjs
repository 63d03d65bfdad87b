// Bundles DevTools' heap-snapshot worker for Node: `node build.mjs` writes `build/devtools.mjs`.
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

await build({
  entryPoints: [here('entry.ts')],
  bundle: true,
  platform: 'node',
  format: 'esm',
  outfile: here('build/devtools.mjs'),
  logLevel: 'warning',
  plugins: [
    {
      name: 'without-translations',
      setup(bundle) {
        bundle.onResolve({ filter: /(i18n\/i18n\.js|\.\/locales\.js)$/ }, () => ({
          path: here('stub.mjs'),
        }));
      },
    },
  ],
});
