/**
 * What the page knows of the memory policy, kept fresh while its page is open: how it is, once a second, and the decisions
 * about guests that are open. Draws nothing.
 */
import { useEffect, useState } from 'preact/hooks';
import { TICK_MS } from '../../src/server/page-pace.ts';
import { api, type GuestPolicyDecision, type PolicyStatus } from './api.ts';

/** Calls `look` once a second while the tab is visible; returns what stops it. */
export function every(look: () => Promise<void>): () => void {
  let timer = 0;
  let ended = false;
  const next = async () => {
    if (!document.hidden) await look();
    if (!ended) timer = window.setTimeout(next, TICK_MS);
  };
  void next();
  return () => {
    ended = true;
    window.clearTimeout(timer);
  };
}

export interface PolicyView {
  /** Undefined until it was asked. */
  readonly policy: PolicyStatus | undefined;
  /** Why it cannot be said how it is. */
  readonly trouble: string;
  /** Does something that the policy answers with how it is then; rejects where it is refused. */
  readonly act: (action: () => Promise<unknown>) => Promise<void>;
}

export function usePolicy(): PolicyView {
  const [policy, setPolicy] = useState<PolicyStatus>();
  const [trouble, setTrouble] = useState('');
  const look = async () => {
    try {
      setPolicy(await api.policy());
      setTrouble('');
    } catch (error) {
      setTrouble((error as Error).message);
    }
  };
  useEffect(() => every(look), []);
  const act = async (action: () => Promise<unknown>) => {
    await action();
    await look();
  };
  return { policy, trouble, act };
}

/** The newest decisions about a guest, oldest first; asked for anew when there is a newer one. */
export function useDecisions(name: string, newestMs: number | undefined): readonly GuestPolicyDecision[] {
  const [decisions, setDecisions] = useState<readonly GuestPolicyDecision[]>([]);
  useEffect(() => {
    let ended = false;
    api.policyHistory(name).then(
      history => {
        if (!ended) setDecisions(history.decisions);
      },
      () => {
        // The page says how the policy is; what was known of the guest stays.
      },
    );
    return () => {
      ended = true;
    };
  }, [name, newestMs]);
  return decisions;
}
