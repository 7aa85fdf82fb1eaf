/** The kinds of guest that a person can ask a command for. */

/** Our own, which runs everywhere; a real kernel as a process. */
export const GUEST_KINDS = ['embedded', 'linux'] as const;
export type GuestKind = (typeof GUEST_KINDS)[number];
