// Stands in for DevTools' translation layer: messages stay English, nothing is loaded.
const same = (text) => text;

export const i18n = {
  lockedString: same,
  registerUIStrings: () => ({}),
  getLocalizedString: (_strings, text) => text,
  getLazilyComputedLocalizedString: (_strings, text) => () => text,
  lockedLazyString: (text) => () => text,
  serializeUIString: (string, values) => JSON.stringify({ string, values }),
  getFormatLocalizedString: same,
};
export const ByteUtilities = {};
export const TimeUtilities = {};
export const DevToolsLocale = {};
export const lockedString = same;
export default i18n;
