/** What a Linux guest shows on the device, on every User Mode Linux that can run here. */
import { describeLinux } from '../../support/peers.ts';
import { userModeLinux } from './front-ends.ts';
import { linuxGuestTests } from './suite.ts';

describeLinux('a Linux guest on the device: User Mode Linux', kernel =>
  linuxGuestTests(userModeLinux(kernel)),
);
