/** Starts the page. */
import { render } from 'preact';
import { takeToken } from './api.ts';
import { App } from './app.tsx';
import { live } from './live.ts';
import { readRoute, route, startRoute } from './route.ts';
import { startTheme } from './theme.ts';
import 'uplot/dist/uPlot.min.css';
import './style/base.css';
import './style/page.css';
import './style/guest.css';
import './style/policy.css';
import './style/fleet.css';

if (takeToken()) readRoute();
// An address with another token, opened where the page is already, only changes the fragment.
window.addEventListener('hashchange', () => {
  if (!takeToken()) return;
  readRoute();
  live.refresh();
});
startTheme();
startRoute();
const follow = () => {
  live.focus = route.value.guest;
};
route.subscribe(follow);
follow();
live.start();
render(<App />, document.getElementById('page') as HTMLElement);
