/**
 * The process that talks to libvirt: its argument is the URI. libvirt's calls wait for libvirtd without a bound, and a
 * thread in such a call keeps its process from ending. This process can be killed in the middle of one.
 */
import { AerostatError } from '../sys/error.ts';
import { Libvirt } from '../sys/libvirt.ts';
import type { LibvirtAnswers, LibvirtQuestion, NumberedAnswer, NumberedQuestion } from './questions.ts';

const [, , uri] = process.argv;
let libvirt: Libvirt | undefined;

type Answer = LibvirtAnswers[keyof LibvirtAnswers];

function answerTo(question: LibvirtQuestion): Answer | Promise<undefined> {
  libvirt ??= Libvirt.open(uri);
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
    answer = { id, code: error.code, message: error.message };
    dropIfDead();
  }
  process.send?.(answer);
});
process.on('disconnect', () => process.exit(0));
