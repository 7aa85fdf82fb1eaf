/** Says in words what placement decided and why, from the reasons that a plan carries. It decides nothing. */
import type { FleetState, HostPlacement, MoveOrder, OrderEnd, StayingGuest } from './types.ts';

type Size = (bytes: number) => string;

const seconds = (ms: number): string => `${Math.max(0, ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;

/** The fleet in a sentence; `unknown` of its hosts are silent. */
export function explainFleet(state: FleetState, unknown: number): string {
  switch (state) {
    case 'moves':
      return 'Guests are moved where they have to be.';
    case 'settling':
      return 'This leader has just begun: it looks on until orders of the former one have shown, and moves nothing.';
    case 'partition':
      return `Half of the hosts or more are silent (${unknown}): nothing is moved until they are back or given up.`;
  }
}

/** An order in a sentence; `size` writes sizes as its caller does. */
export function explainOrder(order: MoveOrder, size: Size): string {
  const { guest, from, to, because } = order;
  const send = `${size(order.sendBytes)} to send in ${seconds(order.sendMs)}, ${size(order.reserveBytes)} reserved at ${to}`;
  return `${guest} moves from ${from} to ${to}, ${becauseWords(because, from, size)}: ${send}.`;
}

function becauseWords(because: MoveOrder['because'], from: string, size: Size): string {
  switch (because.kind) {
    case 'short':
      return `as the guests of ${from} need ${size(because.shortBytes)} more than the ${size(because.budgetBytes)} that they may have, and this costs least`;
    case 'drain':
      return `as ${from} is drained`;
    case 'wish':
      return 'as it was asked for';
  }
}

/** Why a guest stays where it is. */
export function explainStaying({ guest, host, why, detail, bytes }: StayingGuest, size: Size): string {
  return `${guest} stays on ${host === '' ? 'no known host' : host}: ${stayWords(why, detail, bytes, size)}.`;
}

function stayWords(why: StayingGuest['why'], detail: string, bytes: number, size: Size): string {
  switch (why) {
    case 'obstacle':
      return detail;
    case 'doubtful':
      return `more than one host has or had it (${detail}), and it is moved when one alone reports it`;
    case 'stale':
      return "its host's report is old or makes no sense";
    case 'implausible':
      return 'what its host reports of it makes no sense';
    case 'moving':
      return 'it is on its way already';
    case 'dirty':
      return "it writes faster than its host's link can send";
    case 'room':
      return detail === ''
        ? `no host that may receive has ${size(bytes)} for it beside its head-room`
        : `${detail} has no ${size(bytes)} for it beside its head-room`;
    case 'link':
      return 'the links are busy with other moves, and it writes too fast for what is left of them';
    case 'cool-down':
      return `it left ${detail === '' ? 'the hosts that have room' : detail} a moment ago, and does not go back before its cool-down is over`;
    case 'bound':
      return 'as many moves as may be at a time are under way';
    case 'rest':
      return 'a move of it failed a moment ago, and is tried again later';
    case 'next':
      return 'others go first';
    case 'there':
      return 'it is wanted there';
    case 'missing':
      return `no guest of that name, or no host called ${detail}, is reported`;
    case 'receiver':
      return `${detail} may not receive: it is draining, short, or its report cannot be gone by`;
  }
}

/** A host in a sentence. */
export function explainPlacement(placed: HostPlacement, size: Size): string {
  const { host, state, needBytes, budgetBytes } = placed;
  const needs = `its guests need ${size(needBytes)} of the ${size(budgetBytes)} that they may have`;
  const ways = waysWords(placed, size);
  switch (state) {
    case 'steady':
      return `${host}: ${needs}${ways}.`;
    case 'short':
      return `${host} is short of ${size(needBytes - budgetBytes)} for ${seconds(placed.shortMs)}: ${needs}${ways}.`;
    case 'draining':
      return `${host} is drained: ${needs}${ways}.`;
    case 'empty':
      return `${host} is drained, and empty.`;
    case 'stale':
      return `${host} is silent${placed.ageMs < 0 ? '' : ` for ${seconds(placed.ageMs)}`}: nothing moves from or to it.`;
    case 'unseen':
      return `${host} has not reported since this leader began: nothing moves from or to it.`;
    case 'missing':
      return `${host} was there a moment ago, and is missing.`;
    case 'implausible':
      return `${host} reports figures that make no sense: nothing moves from or to it.`;
    case 'twice':
      return `Two hosts are called ${host}: nothing moves from or to either.`;
  }
}

function waysWords({ leaving, arriving, incomingBytes }: HostPlacement, size: Size): string {
  const words: string[] = [];
  if (leaving > 0) words.push(`${leaving} on the way from it`);
  if (arriving > 0) words.push(`${arriving} on the way to it (${size(incomingBytes)} reserved)`);
  return words.length === 0 ? '' : `; ${words.join(', ')}`;
}

/** What became of an order. */
export function explainEnd({ order: { guest, from, to }, end }: OrderEnd): string {
  switch (end) {
    case 'done':
      return `${guest} has moved from ${from} to ${to}.`;
    case 'failed':
      return `${guest} was to move from ${from} to ${to}, and did not.`;
    case 'found':
      return `${guest} is moving from ${from} to ${to} by an order that this leader did not give.`;
  }
}
