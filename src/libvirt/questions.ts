/** What the process that talks to libvirt is asked, and answers, over Node's channel to it. */
import type { DomainJob, DomainNumbers, DomainPlace } from '../sys/libvirt.ts';
import type { DomainMove } from '../sys/libvirt-migration.ts';

/** Sizes in KiB, as libvirt has them. */
export type LibvirtQuestion =
  | { readonly ask: 'domains' }
  | { readonly ask: 'definition'; readonly uuid: string }
  /** `persist`: also in the definition that the domain is started from next. */
  | { readonly ask: 'setMemory'; readonly uuid: string; readonly kib: number; readonly persist: boolean }
  | {
      readonly ask: 'setStatisticsPeriod';
      readonly uuid: string;
      readonly seconds: number;
      readonly persist: boolean;
    }
  /** Answered when the migration is over; the process answers other questions meanwhile. */
  | { readonly ask: 'migrate'; readonly move: DomainMove }
  | { readonly ask: 'jobs'; readonly uuids: readonly string[] }
  | { readonly ask: 'completedJob'; readonly uuid: string }
  | { readonly ask: 'place'; readonly uuid: string }
  | { readonly ask: 'abortJob'; readonly uuid: string }
  | { readonly ask: 'setDowntime'; readonly uuid: string; readonly ms: number }
  | { readonly ask: 'startPostcopy'; readonly uuid: string };

export interface LibvirtAnswers {
  readonly domains: readonly DomainNumbers[];
  readonly definition: string;
  readonly setMemory: undefined;
  readonly setStatisticsPeriod: undefined;
  readonly migrate: undefined;
  readonly jobs: Readonly<Record<string, DomainJob>>;
  readonly completedJob: DomainJob | null;
  readonly place: DomainPlace | null;
  readonly abortJob: undefined;
  readonly setDowntime: undefined;
  readonly startPostcopy: undefined;
}

/** The argument of a process that tells libvirt's events between its answers. */
export const EVENTS = 'events';

export interface NumberedQuestion {
  readonly id: number;
  readonly question: LibvirtQuestion;
}

export type NumberedAnswer =
  | { readonly id: number; readonly answer: LibvirtAnswers[keyof LibvirtAnswers] }
  | {
      readonly id: number;
      readonly code: string;
      readonly message: string;
      /** False where there was no connection to ask over. */
      readonly reached: boolean;
    };
