/** A host on which no memory policy runs: its state is off, and nothing can be asked of it. */
import { PolicyOffError } from './errors.ts';
import type {
  GuestHandlers,
  GuestPolicyOperation,
  HostHandlers,
  HostPolicyOperation,
  PolicyControl,
} from './operations.ts';
import { POLICY_OFF } from './policy.ts';

const refuse = async (): Promise<never> => {
  throw new PolicyOffError();
};

export const noHostPolicy: HostHandlers<HostPolicyOperation> = {
  policy: async () => POLICY_OFF,
  changePolicy: refuse,
  reloadPolicy: refuse,
  reserve: refuse,
  releaseReservation: refuse,
};

/** `expect` throws UnknownGuestError for a name that no guest has. */
export function noGuestPolicy(expect: (name: string) => void): GuestHandlers<GuestPolicyOperation> {
  const refuseFor = async (name: string): Promise<never> => {
    expect(name);
    throw new PolicyOffError();
  };
  return {
    guestPolicy: refuseFor,
    changeGuestPolicy: refuseFor,
    resumePolicy: refuseFor,
    policyHistory: refuseFor,
  };
}

export const noPolicy = (expect: (name: string) => void): PolicyControl => ({
  ...noHostPolicy,
  ...noGuestPolicy(expect),
});
