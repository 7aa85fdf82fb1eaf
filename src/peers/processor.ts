/**
 * What of this machine's processor decides whether a kernel can run as a process: the size of a program's register
 * state. User Mode Linux keeps that state of its programs in a buffer. Before Linux 6.13 the buffer has 2696 bytes,
 * which is what AVX-512 and protection keys need; the host's ptrace refuses a buffer that is smaller than its own
 * state (EFAULT), and the kernel panics at the first program that it runs. Later kernels ask the host for the size.
 * The verdict is a pure function of version and size; only {@link processorFacts} looks at this machine.
 */
import { readFileSync } from 'node:fs';
import { readU64 } from '../sys/struct.ts';

export interface ProcessorFacts {
  /**
   * Bytes of a program's extended state (the XSAVE area, which ptrace knows as NT_X86_XSTATE). Undefined where the
   * host does not tell: nothing is known to be wrong then.
   */
  readonly stateBytes: number | undefined;
  /** Whether the processor has AMX, whose tiles are 8 KiB of that state. */
  readonly amx: boolean;
}

/** Of `arch/x86/um/user-offsets.c` (HOST_XSTATE_SIZE) up to Linux 6.12. */
const UML_STATE_BYTES = 2696;
/** The first version that asks the host (`arch_init_registers` in arch/x86/um/os-Linux/registers.c). */
const UML_ASKS_HOST = [6, 13] as const;

/** Key of the auxiliary vector (Linux 5.14): bytes that a signal's frame can need, the extended state included. */
const AT_MINSIGSTKSZ = 51;
/**
 * Bytes of that frame beside the extended state: kernels say 1776 for a state of 832 bytes (AVX), 3632 for 2696
 * (AVX-512 and protection keys), 11952 for 11008 (AMX). The frame is rounded up to 16 bytes.
 */
const FRAME_BYTES_MAX = 944;
/** The state with AMX: two tiles' worth of configuration and data after all that came before. */
const AMX_STATE_BYTES = 11008;

function minimalSignalStack(auxv: Uint8Array): number | undefined {
  const view = new DataView(auxv.buffer, auxv.byteOffset, auxv.byteLength);
  for (let at = 0; at + 16 <= auxv.byteLength; at += 16) {
    if (readU64(view, at) === AT_MINSIGSTKSZ) return readU64(view, at + 8);
  }
  return undefined;
}

/** The facts that these two files of /proc hold: `self/auxv` and `cpuinfo`. */
export function factsFrom(auxv: Uint8Array, cpuinfo: string): ProcessorFacts {
  const amx = /^flags\s*:.*\bamx_tile\b/m.test(cpuinfo);
  const frame = minimalSignalStack(auxv);
  if (frame !== undefined) return { stateBytes: frame - FRAME_BYTES_MAX, amx };
  return { stateBytes: amx ? AMX_STATE_BYTES : undefined, amx };
}

function readOr<Fallback>(path: string, fallback: Fallback): Buffer | Fallback {
  try {
    return readFileSync(path);
  } catch {
    return fallback;
  }
}

export const processorFacts = (): ProcessorFacts =>
  factsFrom(readOr('/proc/self/auxv', new Uint8Array()), String(readOr('/proc/cpuinfo', '')));

/** The numbers that a version begins with: [6, 1, 55] of `6.1.55-um`. */
export const versionNumbers = (version: string): readonly number[] =>
  (/^\d+(?:\.\d+)*/.exec(version)?.[0] ?? '').split('.').filter(Boolean).map(Number);

/** Negative when version `a` is before `b`. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [versionNumbers(a), versionNumbers(b)];
  for (let at = 0; at < Math.max(left.length, right.length); at++) {
    const difference = (left[at] ?? 0) - (right[at] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** Why User Mode Linux of this version does not run on such a processor; undefined where nothing speaks against it. */
export function umlFault(version: string, { stateBytes, amx }: ProcessorFacts): string | undefined {
  if (compareVersions(version, UML_ASKS_HOST.join('.')) >= 0) return undefined;
  if (stateBytes === undefined || stateBytes <= UML_STATE_BYTES) return undefined;
  const [major, minor] = versionNumbers(version);
  const why = amx ? 'AMX' : `${stateBytes} bytes of registers`;
  return `Linux ${major}.${minor ?? 0} of User Mode Linux does not run on this processor (${why})`;
}
