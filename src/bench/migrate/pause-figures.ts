/** Where guests stood still, as figures of a row: a spread for every step and part of one, by the names that the source gives. */
import type { MigrationSummary } from '../../migration/source-shapes.ts';
import { type Spread, spreadOf } from '../report.ts';

export function pauseFigures(summaries: readonly Pick<MigrationSummary, 'pause'>[]): Record<string, Spread> {
  const samples = new Map<string, number[]>();
  for (const { pause } of summaries) {
    for (const { step, ms } of pause) samples.set(step, [...(samples.get(step) ?? []), ms]);
  }
  return Object.fromEntries([...samples].map(([step, ms]) => [`pause.${step}Ms`, spreadOf(ms)]));
}
