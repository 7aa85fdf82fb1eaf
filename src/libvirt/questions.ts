/** What the process that talks to libvirt is asked, and answers, over Node's channel to it. */
import type { DomainNumbers } from '../sys/libvirt.ts';

/** Sizes in KiB, as libvirt has them. */
export type LibvirtQuestion =
  | { readonly ask: 'domains' }
  | { readonly ask: 'definition'; readonly uuid: string }
  | { readonly ask: 'setMemory'; readonly uuid: string; readonly kib: number }
  | { readonly ask: 'setStatisticsPeriod'; readonly uuid: string; readonly seconds: number };

export interface LibvirtAnswers {
  readonly domains: readonly DomainNumbers[];
  readonly definition: string;
  readonly setMemory: undefined;
  readonly setStatisticsPeriod: undefined;
}

export interface NumberedQuestion {
  readonly id: number;
  readonly question: LibvirtQuestion;
}

export type NumberedAnswer =
  | { readonly id: number; readonly answer: LibvirtAnswers[keyof LibvirtAnswers] }
  | { readonly id: number; readonly code: string; readonly message: string };
