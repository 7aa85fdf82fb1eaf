/**
 * The process that talks to libvirt: its argument is the URI. libvirt's calls wait for libvirtd without a bound, and a
 * thread in such a call keeps its process from ending. This process can be killed in the middle of one.
 */
import { AerostatError } from '../sys/error.ts';
import { Libvirt } from '../sys/libvirt.ts';
import type { LibvirtAnswers, LibvirtQuestion, NumberedAnswer, NumberedQuestion } from './questions.ts';

const [, , uri] = process.argv;
let libvirt: Libvirt | undefined;

function answerTo(question: LibvirtQuestion): LibvirtAnswers[keyof LibvirtAnswers] {
  libvirt ??= Libvirt.open(uri);
  switch (question.ask) {
    case 'domains':
      return libvirt.domains();
    case 'definition':
      return libvirt.definition(question.uuid);
    case 'setMemory':
      return void libvirt.setMemory(question.uuid, question.kib);
    case 'setStatisticsPeriod':
      return void libvirt.setStatisticsPeriod(question.uuid, question.seconds);
  }
}

/** A libvirtd that was started anew is connected to again. */
function dropIfDead(): void {
  if (libvirt === undefined || libvirt.isAlive()) return;
  libvirt.close();
  libvirt = undefined;
}

process.on('message', ({ id, question }: NumberedQuestion) => {
  dropIfDead();
  let answer: NumberedAnswer;
  try {
    answer = { id, answer: answerTo(question) };
  } catch (error) {
    if (!(error instanceof AerostatError)) throw error;
    answer = { id, code: error.code, message: error.message };
    dropIfDead();
  }
  process.send?.(answer);
});
process.on('disconnect', () => process.exit(0));
