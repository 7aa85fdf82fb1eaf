import { describe, expect, it } from 'vitest';
import { compareVersions, factsFrom, processorFacts, umlFault } from '../../src/peers/processor.ts';

/** An auxiliary vector as the kernel hands it to programs, with this much room for a signal's frame. */
function auxv(signalStack?: number): Uint8Array {
  const pairs: readonly (readonly [number, number])[] = [
    [6, 4096],
    ...(signalStack === undefined ? [] : [[51, signalStack] as const]),
    [23, 0],
    [0, 0],
  ];
  return new Uint8Array(BigUint64Array.from(pairs.flat().map(BigInt)).buffer);
}

const cpu = (...flags: readonly string[]) =>
  `processor\t: 0\nflags\t\t: fpu xsave ${flags.join(' ')}\nbugs\t\t:\n`;

/** What kernels tell on such processors. */
const AVX = factsFrom(auxv(1776), cpu('avx2'));
const AVX512 = factsFrom(auxv(3632), cpu('avx512f', 'pku'));
const AMX = factsFrom(auxv(11952), cpu('avx512f', 'pku', 'amx_tile'));

describe('the decision whether User Mode Linux runs on a processor', () => {
  it('knows the size of a program’s state by the room that the host asks for signals', () => {
    expect(AVX).toEqual({ stateBytes: 832, amx: false });
    expect(AVX512.stateBytes).toBeLessThanOrEqual(2696);
    expect(AVX512.stateBytes).toBeGreaterThan(2600);
    expect(AMX).toEqual({ stateBytes: 11008, amx: true });
  });

  it('lets every kernel run where the state is as large as with AVX-512 and protection keys', () => {
    for (const version of ['6.1.55', '6.12.30', '7.2.7']) {
      expect(umlFault(version, AVX)).toBeUndefined();
      expect(umlFault(version, AVX512)).toBeUndefined();
    }
  });

  it('refuses Linux 6.1 and 6.12 on processors with AMX, and takes those that ask for the size', () => {
    expect(umlFault('6.1.176', AMX)).toBe(
      'Linux 6.1 of User Mode Linux does not run on this processor (AMX)',
    );
    expect(umlFault('6.12um1', AMX)).toContain('Linux 6.12 of User Mode Linux does not run');
    expect(umlFault('6.13', AMX)).toBeUndefined();
    expect(umlFault('7.2.7', AMX)).toBeUndefined();
  });

  it('goes by the size and not by a name: states to come count too', () => {
    const next = factsFrom(auxv(8000), cpu('apx'));
    expect(umlFault('6.1.0', next)).toMatch(/does not run on this processor \(7056 bytes of registers\)$/);
  });

  it('goes by the processor’s flags on hosts that do not tell the size', () => {
    expect(umlFault('6.1.0', factsFrom(auxv(), cpu('avx2')))).toBeUndefined();
    expect(umlFault('6.1.0', factsFrom(auxv(), cpu('amx_tile')))).toMatch(/\(AMX\)$/);
    expect(umlFault('6.1.0', factsFrom(new Uint8Array(), ''))).toBeUndefined();
  });

  it('knows of this machine what its kernel says', () => {
    const { stateBytes, amx } = processorFacts();
    if (amx) expect(stateBytes).toBeGreaterThan(2696);
    else expect(stateBytes ?? 0).toBeLessThanOrEqual(2696);
  });
});

it('versions are compared by their numbers', () => {
  expect(['7.2.7', '6.9', '6.13-rc1', '6.12.117+deb13'].sort(compareVersions)).toEqual([
    '6.9',
    '6.12.117+deb13',
    '6.13-rc1',
    '7.2.7',
  ]);
  expect(compareVersions('7.2', '7.2.0')).toBe(0);
});
