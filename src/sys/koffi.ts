/**
 * The library that calls native functions, loaded when the first is called: `aerostat/virtio` and `aerostat/balloon` are
 * used without one, in programs that need not have it.
 */
import { createRequire } from 'node:module';

type Koffi = typeof import('koffi').default;

let loaded: Koffi | undefined;

export function koffi(): Koffi {
  loaded ??= createRequire(import.meta.url)('koffi') as Koffi;
  return loaded;
}
