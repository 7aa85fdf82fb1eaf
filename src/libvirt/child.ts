/**
 * The process that talks to libvirt: its arguments are the URI, and `events` where libvirt's are to be told. libvirt's calls
 * wait for libvirtd without a bound, and a thread in such a call keeps its process from ending. This process can be killed in
 * the middle of one.
 */
import { AerostatError } from '../sys/error.ts';
import { Libvirt } from '../sys/libvirt.ts';
import { type LibvirtEvent, startEventLoop } from '../sys/libvirt-events.ts';
import {
  EVENTS,
  type LibvirtAnswers,
  type LibvirtQuestion,
  type NumberedAnswer,
  type NumberedQuestion,
} from './questions.ts';

const [, , uri, events] = process.argv;
let libvirt: Libvirt | undefined;
let isTold = false;

function open(): Libvirt {
  // The loop has to be there before the first connection, which would have no events else.
  isTold ||= events === EVENTS && startEventLoop();
  return Libvirt.open(uri, isTold ? (event: LibvirtEvent) => process.send?.(event) : undefined);
}

type Answer = LibvirtAnswers[keyof LibvirtAnswers];

function answerTo(question: LibvirtQuestion): Answer | Promise<undefined> {
  libvirt ??= open();
  switch (question.ask) {
    case 'domains':
      return libvirt.domains();
    case 'definition':
      return libvirt.definition(question.uuid);
    case 'setMemory':
      return void libvirt.setMemory(question.uuid, question.kib, question.persist);
    case 'setStatisticsPeriod':
      return void libvirt.setStatisticsPeriod(question.uuid, question.seconds, question.persist);
    case 'migrate':
      return libvirt.migrate(uri, question.move).then(() => undefined);
    case 'jobs':
      return libvirt.jobs(question.uuids);
    case 'completedJob':
      return libvirt.completedJob(question.uuid);
    case 'place':
      return libvirt.place(question.uuid);
    case 'abortJob':
      return void libvirt.abortJob(question.uuid);
    case 'setDowntime':
      return void libvirt.setDowntime(question.uuid, question.ms);
    case 'startPostcopy':
      return void libvirt.startPostcopy(question.uuid);
  }
}

/** A libvirtd that was started anew is connected to again. */
function dropIfDead(): void {
  if (libvirt === undefined || libvirt.isAlive()) return;
  libvirt.close();
  libvirt = undefined;
}

process.on('message', async ({ id, question }: NumberedQuestion) => {
  dropIfDead();
  let answer: NumberedAnswer;
  try {
    answer = { id, answer: await answerTo(question) };
  } catch (error) {
    if (!(error instanceof AerostatError)) throw error;
    answer = { id, code: error.code, message: error.message, reached: libvirt !== undefined };
    dropIfDead();
  }
  process.send?.(answer);
});
// Node's own end would wait for the thread of libvirt's events.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
