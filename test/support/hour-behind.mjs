// Loaded before a program: its wall clock is an hour behind. Clocks that are never set go on as they do.
const HOUR_MS = 3_600_000;
const Real = Date;
globalThis.Date = class extends Real {
  constructor(...words) {
    if (words.length === 0) super(Real.now() - HOUR_MS);
    else super(...words);
  }
  static now() {
    return Real.now() - HOUR_MS;
  }
};
