// The page: a stream of events in, figures out. It only reads.
import { again, follow } from './campaigns.js';
import * as flow from './flow.js';
import * as plot from './plot.js';
import { choose, moment, number, size, span, translate, word } from './words.js';

const by = (id) => document.getElementById(id);
const silenceMs = 5000; // without an event for so long the figures are old

let latest = null, source = null, silent = 0, retry = 0;

function set(id, text) {
  const element = by(id);
  if (element.textContent !== text) element.textContent = text;
}

function state(name, mood) {
  const pill = by('state');
  pill.dataset.word = name;
  pill.className = 'pill ' + mood;
  set('state', word(name));
}

function lines(section, list, texts) {
  by(section).hidden = texts.length === 0;
  const now = [...by(list).children].map((item) => item.textContent);
  if (now.length === texts.length && texts.every((text, i) => text === now[i])) return;
  by(list).replaceChildren(...texts.map((text) => {
    const item = document.createElement('li');
    item.textContent = text;
    return item;
  }));
}

function show(f) {
  latest = f;
  const reasons = f.reasons ?? [];
  state(reasons.length ? 'notReadyPill' : 'ready', reasons.length ? 'bad' : 'good');
  lines('troubles', 'reasons', reasons);
  lines('underway', 'progress', f.progress ?? []);
  flow.show(f);
  for (const name of ['delivery', 'visible', 'fence']) {
    for (const q of ['p50', 'p99']) set(`${name}-${q}`, f[name].count ? span(f[name][q]) : '–');
  }
  set('delivery-count', number(f.delivery.count));
  showIndex(f);
  set('slot-lag', size(f.source.lag));
  set('slot-retained', size(f.source.retained));
  set('slot-limit', size(f.source.limit));
  set('slot-rebuilds', number(f.source.rebuilds));
  by('slot-meter').value = f.source.limit ? f.source.retained / f.source.limit : 0;
  set('sinks-deliveries', number(f.sinks.deliveries));
  set('sinks-recovered', number(f.sinks.recovered));
  set('sinks-postgres', number(f.sinks.retries.postgres ?? 0));
  set('sinks-kafka', number(f.sinks.retries.kafka ?? 0));
  set('sinks-dead', number(f.sinks.dead_letters));
  showAgreement(f.agreement);
}

function showAgreement(a) {
  const asked = a?.at > 0;
  set('sinks-agreement', !asked ? '–' : a.level ? word('level') : word(a.missing ? 'ahead' : 'apartFor'));
  by('sinks-agreement').className = !asked ? '' : a.level ? 'delivered' : a.missing ? 'malformed' : 'inactive';
  set('sinks-since', asked ? moment(new Date(a.since)) : '–');
  for (const name of ['ledger', 'group', 'owed']) set('sinks-' + name, asked ? number(a[name]) : '–');
  const apart = asked ? a.apart.map((p) => word('apart', {
    partition: p.partition, ledger: number(p.ledger), group: number(p.group), owed: number(p.owed), since: moment(new Date(p.since)),
  })) : [];
  if (asked && a.differ > a.apart.length) apart.push(word('apartMore', { n: number(a.differ - a.apart.length) }));
  lines('sinks-apart', 'sinks-apart', apart);
  set('sinks-error', a?.error ?? '');
}

function showIndex(f) {
  const { resident = 0, empty = 0, filled = 0 } = f.lookups;
  const all = resident + empty + filled;
  set('index-subscriptions', number(f.index.subscriptions));
  set('index-restaurants', number(f.index.restaurants));
  set('index-bytes', size(f.index.bytes));
  set('index-hits', all ? `${number((resident + empty) / all * 100, 1)} %` : '–');
  set('index-filled', number(filled));
}

function heard() {
  clearTimeout(silent);
  silent = setTimeout(() => state('lost', 'bad'), silenceMs);
}

function connect() {
  clearTimeout(retry);
  source?.close();
  source = new EventSource('/live/events');
  source.addEventListener('history', (event) => plot.history(JSON.parse(event.data)));
  source.addEventListener('figures', (event) => {
    heard();
    const figures = JSON.parse(event.data);
    show(figures);
    if (figures.point) plot.add(figures.point);
    follow(figures);
  });
  source.addEventListener('error', () => {
    state('lost', 'bad');
    // A browser tries again by itself unless it was refused.
    if (source.readyState === EventSource.CLOSED) retry = setTimeout(connect, silenceMs);
  });
}

// A tab that nobody looks at costs the daemon nothing.
document.addEventListener('visibilitychange', () => {
  clearTimeout(silent);
  clearTimeout(retry);
  if (document.hidden) source?.close();
  else connect();
});

for (const which of ['en', 'ru']) {
  by('language-' + which).addEventListener('click', () => {
    choose(which);
    redraw();
  });
}

function redraw() {
  translate();
  flow.draw();
  plot.draw();
  if (latest) show(latest);
  again();
}

redraw();
connect();
