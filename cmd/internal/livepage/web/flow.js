// The flow as a picture: boxes and arrows, with what moves along each arrow a second.
import { rate, word } from './words.js';

const namespace = 'http://www.w3.org/2000/svg';
const width = 150, height = 44;

// Where the boxes stand (their middle), on a wide and on a narrow screen.
const boxes = {
  nodeTable: { wide: [80, 50], narrow: [80, 30] },
  nodeLog: { wide: [290, 50], narrow: [80, 125] },
  nodeIndex: { wide: [500, 50], narrow: [80, 220], core: true },
  nodeTopic: { wide: [290, 190], narrow: [260, 220] },
  nodeJoin: { wide: [500, 190], narrow: [170, 325], core: true },
  nodePostgres: { wide: [740, 50], narrow: [80, 430] },
  nodeKafka: { wide: [740, 190], narrow: [260, 430] },
  nodeDead: { wide: [740, 285], narrow: [170, 525] },
};

// From, to, which rate, and the rate's word. Postgres commits before Kafka; both count the same.
const arrows = [
  ['nodeTable', 'nodeLog', 'changes', 'changes'],
  ['nodeLog', 'nodeIndex', 'transactions', 'transactions'],
  ['nodeIndex', 'nodeJoin', 'lookups', 'lookups'],
  ['nodeTopic', 'nodeJoin', 'campaigns', 'campaigns'],
  ['nodeJoin', 'nodePostgres', 'deliveries', 'deliveries'],
  ['nodeJoin', 'nodeKafka', 'deliveries', 'deliveries'],
  ['nodeJoin', 'nodeDead', 'dead_letters', 'letters'],
];

export function element(name, attributes = {}, text = '') {
  const made = document.createElementNS(namespace, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== '') made.textContent = text;
  return made;
}

const svg = document.getElementById('flow');
const described = document.getElementById('flow-text');
const narrow = matchMedia('(max-width: 40rem)');
let drawn = []; // of each arrow: its line and its text
let latest = null;

export function draw() {
  const shape = narrow.matches ? 'narrow' : 'wide';
  svg.replaceChildren();
  svg.setAttribute('viewBox', shape === 'narrow' ? '0 0 340 555' : '0 0 820 320');
  drawn = arrows.map(([from, to, key, unit]) => arrow(boxes[from][shape], boxes[to][shape], key, unit, shape));
  for (const [name, box] of Object.entries(boxes)) {
    const [x, y] = box[shape];
    svg.append(
      element('rect', { x: x - width / 2, y: y - height / 2, width, height, rx: 8, class: box.core ? 'box core' : 'box' }),
      element('text', { x, y: y + 5, 'text-anchor': 'middle' }, word(name)),
    );
  }
  for (const one of drawn) svg.append(one.text);
  if (latest) show(latest);
}

// arrow is straight, from the edge of one box to the edge of the other.
function arrow(from, to, key, unit, shape) {
  const [x1, y1] = edge(from, to, 0), [x2, y2] = edge(to, from, 7);
  const line = element('line', { x1, y1, x2, y2, class: 'arrow' });
  const angle = Math.atan2(y2 - y1, x2 - x1) * 180 / Math.PI;
  const tip = element('path', { d: 'M8,0 L-3,-5 L-3,5 Z', class: 'tip', transform: `translate(${x2} ${y2}) rotate(${angle})` });
  const at = place(from, to, [(x1 + x2) / 2, (y1 + y2) / 2], shape);
  const text = element('text', { ...at, 'text-anchor': 'middle', class: 'rate' });
  svg.append(line, tip);
  return { line, text, key, unit };
}

// place is where a rate stands: above a level arrow, else in its middle. On a narrow screen there is
// room beside the join only in the columns of the outer boxes.
function place(from, to, [x, y], shape) {
  if (shape === 'wide') return { x, y: from[1] === to[1] ? y - 30 : y + 5 };
  if (from[0] !== to[0]) {
    const outer = Math.abs(from[0] - 170) > Math.abs(to[0] - 170) ? from : to;
    return { x: outer[0], y: outer[1] + (outer === from ? 41 : -32) };
  }
  return { x, y: from[0] === 170 ? to[1] - 32 : y + 3 };
}

// edge is where the line to another box leaves this one, gap away from it.
function edge([x, y], [toX, toY], gap) {
  const dx = toX - x, dy = toY - y;
  const part = Math.min((width / 2 + gap) / Math.abs(dx || 1e-9), (height / 2 + gap) / Math.abs(dy || 1e-9));
  return [x + dx * part, y + dy * part];
}

export function show(figures) {
  latest = figures;
  const sentences = [];
  for (const one of drawn) {
    const value = figures.rates[one.key];
    const text = rate(value, one.unit);
    if (one.text.textContent !== text) one.text.textContent = text;
    one.line.classList.toggle('flowing', value > 0);
    sentences.push(text);
  }
  described.textContent = arrows.map(([from, to], i) => `${word(from)} → ${word(to)}: ${sentences[i]}`).join('; ');
}

narrow.addEventListener('change', draw);
