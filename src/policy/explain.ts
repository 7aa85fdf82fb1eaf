/** Says in words why a guest's target is what it is, from the reasons that a decision carries. It decides nothing. */
import type { GuestDecision, HostDecision } from './types.ts';

type Size = (bytes: number) => string;

/** One or two sentences for people; `size` writes sizes as its caller does. */
export function explainGuest(guest: GuestDecision, host: HostDecision, size: Size): string {
  const { name, held, mode } = guest;
  if (held === 'unknown')
    return `${name} is left alone: its sample is not plausible. It counts with ${size(guest.committedBytes)}.`;
  if (mode === 'hold')
    return `${name} is on hold: a person set its target. It keeps ${size(guest.currentBytes)}.`;
  if (mode === 'off')
    return `${name} is not this policy's to steer. It counts with ${size(guest.committedBytes)}.`;
  const parts = [
    `${name} keeps ${size(guest.keepBytes)} of ${size(guest.memoryBytes)}: ${boundWords(guest, host, size)}`,
  ];
  const why = heldWords(guest, size);
  if (why !== '') parts.push(why);
  if (guest.contradiction)
    parts.push(`its minimum is above its maximum of ${size(guest.maxBytes)}, which counts`);
  return `${parts.join('; ')}.`;
}

function boundWords(guest: GuestDecision, host: HostDecision, size: Size): string {
  const { usedBytes, needBytes, learnedBytes, shares, floorBytes } = guest;
  const use =
    usedBytes < 0
      ? 'it does not say what it uses'
      : `it uses ${size(usedBytes)} and needs ${size(needBytes)}`;
  const learned = learnedBytes >= needBytes && learnedBytes > 0 ? ', as it suffered with less' : '';
  switch (guest.bound) {
    case 'room':
      return `${use}${learned}, and the host has room for all that every guest may have`;
    case 'surplus':
      return `${use}${learned}, and gets its part of what is left of ${size(host.budgetBytes)}`;
    case 'shares':
      return `${use}${learned}; all guests together need more than ${size(host.budgetBytes)}, so it gets its part by ${shares} shares`;
    case 'floor':
      return `${use}; all guests together need more than ${size(host.budgetBytes)}, and its floor is ${size(floorBytes)}`;
    case 'fixed':
      return 'this policy decides nothing about it';
  }
}

function heldWords({ held, wantBytes, statisticsAgeMs }: GuestDecision, size: Size): string {
  const on = `it is to keep ${size(wantBytes)} in the end`;
  switch (held) {
    case 'step':
      return `${on}, and gives the rest step by step`;
    case 'small':
      return `${on}, which is too small a change to make`;
    case 'blocked':
      return `${on}, but it got memory a moment ago, and rests`;
    case 'harm':
      return `${on}, but it suffered when memory was taken, so nothing is taken for a while`;
    case 'stale':
      return statisticsAgeMs < 0
        ? `${on}, but it says nothing of its memory, so nothing is taken`
        : `${on}, but its statistics are ${Math.round(statisticsAgeMs / 1000)} s old, so nothing is taken`;
    case 'boot':
      return `${on}, but it has just started, so nothing is taken yet`;
    case 'waiting':
      return `${on}, and gets the rest when other guests have given it`;
    case 'stuck':
      return `${on}, but its balloon does not grow, so it is asked again later`;
    default:
      return '';
  }
}

/** The host in a sentence. */
export function explainHost(host: HostDecision, size: Size): string {
  const { budgetBytes, totalBytes, reserveBytes, othersBytes, reservedBytes, waitingBytes } = host;
  const reserved = reservedBytes === 0 ? '' : `, ${size(reservedBytes)} kept for guests that start`;
  const budget = `The guests may keep ${size(budgetBytes)} of ${size(totalBytes)} (reserve ${size(reserveBytes)}, others ${size(othersBytes)}${reserved})`;
  const state = host.floorsAbove
    ? `their floors alone are ${size(host.floorsBytes + host.fixedBytes)}: stop a guest, or move one away`
    : host.overcommitted
      ? `they need ${size(host.needBytes + host.fixedBytes)}: the host is overcommitted`
      : `they need ${size(host.needBytes + host.fixedBytes)}`;
  const waiting = waitingBytes === 0 ? '' : `; ${size(waitingBytes)} are waited for`;
  return `${budget}; ${state}${waiting}.`;
}
