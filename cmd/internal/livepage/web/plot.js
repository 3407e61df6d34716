// The last 15 minutes of campaign to both sinks: p50 and p99, on a logarithmic scale.
import { element } from './flow.js';
import { span, word } from './words.js';

const svg = document.getElementById('plot');
const spanMs = 15 * 60_000, gapMs = 15_000; // points further apart are not joined
const narrow = matchMedia('(max-width: 40rem)');
let points = [];

export function history(all) {
  points = all;
  draw();
}

export function add(point) {
  points = [...points.filter((p) => p.at > point.at - spanMs && p.at !== point.at), point];
  draw();
}

export function draw() {
  svg.replaceChildren();
  const box = { left: 64, right: narrow.matches ? 330 : 1010, top: 12, bottom: 118 };
  svg.setAttribute('viewBox', `0 0 ${box.right + 10} 140`);
  document.getElementById('plot-text').textContent = word('plotText');
  const counted = points.filter((p) => p.count > 0);
  const end = points.length ? points[points.length - 1].at : Date.now();
  const low = Math.floor(Math.log10(Math.min(1e-2, ...counted.map((p) => Math.max(p.p50, 1e-4)))));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(1e-1, ...counted.map((p) => p.p99)))));
  const x = (at) => box.right - (end - at) / spanMs * (box.right - box.left);
  const y = (seconds) => box.bottom - (Math.log10(Math.max(seconds, 10 ** low)) - low) / (high - low) * (box.bottom - box.top);
  for (let power = low; power <= high; power++) {
    svg.append(element('line', { x1: box.left, x2: box.right, y1: y(10 ** power), y2: y(10 ** power), class: 'grid' }),
      element('text', { x: box.left - 6, y: y(10 ** power) + 4, 'text-anchor': 'end', class: 'soft' }, span(10 ** power)));
  }
  svg.append(element('text', { x: box.left, y: 134, class: 'soft' }, word('minutesAgo')),
    element('text', { x: box.right, y: 134, 'text-anchor': 'end', class: 'soft' }, word('now')));
  if (counted.length === 0) {
    svg.append(element('text', { x: (box.left + box.right) / 2, y: 70, 'text-anchor': 'middle', class: 'soft' }, word('nothing')));
  }
  for (const q of ['p99', 'p50']) curve(counted, q, x, y);
}

function curve(counted, q, x, y) {
  let path = '';
  counted.forEach((p, i) => {
    const joined = i > 0 && p.at - counted[i - 1].at < gapMs;
    path += `${joined ? 'L' : 'M'}${x(p.at).toFixed(1)},${y(p[q]).toFixed(1)}`;
    svg.append(element('circle', { cx: x(p.at).toFixed(1), cy: y(p[q]).toFixed(1), r: 2.2, class: q === 'p50' ? 'dot50' : 'dot99' }));
  });
  if (path) svg.append(element('path', { d: path, class: q }));
}

narrow.addEventListener('change', draw);
