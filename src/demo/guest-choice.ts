/**
 * Which guest a command boots when a person did not say: a real Linux where one can run here, else the embedded guest,
 * which runs everywhere; and the one line that tells which and why. A peer that turns out not to boot is no failure
 * of the command, see {@link withFallback}. How guests are booted is not known here.
 */

import { missingPrograms } from '../peers/programs.ts';
import { type FoundUmlKernel, findUmlKernels, umlComplaint } from '../peers/uml/kernel.ts';
import { AerostatError } from '../sys/error.ts';
import type { GuestKind } from './guest-kinds.ts';

export interface GuestChoice {
  readonly kind: GuestKind;
  /** One line for people. */
  readonly why: string;
}

const embedded = (why: string): GuestChoice => ({ kind: 'embedded', why: `embedded guest: ${why}` });

/** The best guest that can run here. */
export function bestGuest(kernels: readonly FoundUmlKernel[] = findUmlKernels()): GuestChoice {
  const complaint = umlComplaint(kernels) ?? missingPrograms('busybox');
  if (complaint !== undefined) return embedded(complaint.message);
  const [{ version, origin }] = kernels;
  const whose = origin === 'private' ? 'installed by aerostat peers' : "the system's own";
  return { kind: 'linux', why: `Linux guest: ${version} of User Mode Linux, ${whose}` };
}

/** Throws the reason why a Linux guest that was asked for cannot be had. @throws MissingPeerError, UnusablePeerError */
export function requireLinux(): void {
  const complaint = umlComplaint(findUmlKernels()) ?? missingPrograms('busybox');
  if (complaint !== undefined) throw complaint;
}

/** A guest did not come up; the cause says why. */
export class BootFailure extends Error {
  constructor(cause: AerostatError) {
    super(cause.message, { cause });
  }
}

/**
 * Makes an error of a boot known as one. Errors that are bugs stay what they are, and so does the end of a boot that a
 * person interrupted.
 */
export async function booting<Guest>(boot: Promise<Guest>, interrupt: AbortSignal): Promise<Guest> {
  try {
    return await boot;
  } catch (error) {
    interrupt.throwIfAborted();
    throw error instanceof AerostatError ? new BootFailure(error) : error;
  }
}

/**
 * Runs `body` with the guest of `wanted`, or with the best one and, when that does not boot, with the embedded one.
 * `tell` is told which and why, unless a person wanted it so. `best` and `check` look at this machine; tests have
 * others.
 * @throws what `body` throws; for a boot that failed, its cause
 */
export async function withFallback<Result>(
  wanted: GuestKind | undefined,
  tell: (line: string) => void,
  body: (kind: GuestKind) => Promise<Result>,
  best: () => GuestChoice = bestGuest,
  check: () => void = requireLinux,
): Promise<Result> {
  if (wanted === 'linux') check();
  const { kind, why } = wanted === undefined ? best() : { kind: wanted, why: undefined };
  if (why !== undefined) tell(why);
  try {
    return await body(kind);
  } catch (error) {
    if (!(error instanceof BootFailure)) throw error;
    if (wanted !== undefined || kind === 'embedded') throw error.cause;
    tell(embedded(error.message.split('\n')[0]).why);
  }
  return body('embedded');
}
