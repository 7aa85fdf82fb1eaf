/** What can happen in {@link ./hint-model.ts}: a step is a kind and, for some, a page, in one number `kind * 8 + page`. */

const KINDS = [
  'store',
  'log',
  'allocate',
  'free',
  'release',
  'read-config',
  'begin',
  'hint',
  'end',
  'process',
  'next',
  'send',
] as const;
type StepKind = (typeof KINDS)[number];

export const PAGES_PER_KIND = 8;
export const stepOf = (kind: StepKind, page = 0): number => KINDS.indexOf(kind) * PAGES_PER_KIND + page;
export const kindOf = (step: number): StepKind => KINDS[Math.floor(step / PAGES_PER_KIND)];
export const pageOf = (step: number): number => step % PAGES_PER_KIND;
