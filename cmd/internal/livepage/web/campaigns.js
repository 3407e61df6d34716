// The messages handled last, the search, and what became of one message. What comes from campaigns
// is only ever set as text.
import { counted, moment, number, word } from './words.js';

const by = (id) => document.getElementById(id);
const listEvery = 2000; // ms: the list follows at most so often

// ask fetches JSON; a refusal is thrown as words for the reader.
async function ask(path) {
  const response = await fetch(path, { headers: { Accept: 'application/json' } });
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  if (response.status === 403) throw new Error(word('private'));
  if (response.status === 404 && path.startsWith('/live/explain')) throw new Error(word('notFound'));
  throw new Error(word('failed') + (body.error ?? response.status));
}

// made is an element with text.
function made(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}

// isolated keeps the text's direction to itself: an id may hold marks that turn what follows around.
const isolated = (className, text) => {
  const outer = made('span', className, '');
  outer.append(made('bdi', '', text));
  return outer;
};

const outcomes = ['delivered', 'inactive', 'no_subscribers', 'malformed'];

const records = (message) => message.outcome === 'malformed' ? 1 : message.recipients;

// became is the outcome, or how far a message is whose records are still going out. Without an answer
// of the brokers nobody knows whether it is delivered.
function became(message) {
  if (message.under_way) return word('going', { sent: number(message.records_sent), records: number(records(message)) });
  if (records(message) && message.records_sent === undefined) return word('decided', { outcome: word(message.outcome) });
  return word(message.outcome);
}

const isOut = (message) => message.records_sent !== undefined && !message.under_way;

function fill(item, message) {
  const known = records(message) && !isOut(message) ? 'going' : outcomes.includes(message.outcome) ? message.outcome : '';
  const text = became(message);
  if (item.dataset.became === text) return;
  item.dataset.became = text;
  item.firstChild.replaceChildren(
    made('span', known, text),
    made('span', 'when', moment(new Date(message.handled_at))),
    isolated('id', message.adv_campaign_id ?? word('unknown')),
    made('span', 'many', counted(message.recipients, 'recipients')),
    isolated('name', message.trigger),
  );
}

// render brings a list up to date and leaves what stays where it is, so that the focus stays too.
function render(list, messages) {
  const old = new Map([...list.children].map((item) => [item.dataset.key, item]));
  const wanted = new Set(messages.map((m) => m.trigger));
  for (const [key, item] of old) if (!wanted.has(key)) item.remove();
  messages.forEach((message, i) => {
    let item = old.get(message.trigger);
    if (!item) {
      item = document.createElement('li');
      item.dataset.key = message.trigger;
      const button = document.createElement('button');
      button.type = 'button';
      button.addEventListener('click', () => open(message.trigger));
      item.append(button);
    }
    fill(item, message);
    if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null);
  });
}

let handled = -1; // messages counted when the list was read
let readAt = 0, timer = 0, shown = [];

// follow reads the list again when more messages have been handled, and while some are under way.
export function follow(figures) {
  const count = Object.values(figures.campaigns).reduce((a, b) => a + b, 0);
  const moves = figures.agreement?.at > 0 && !figures.agreement.level || shown.some((message) => message.under_way);
  if (count === handled && !moves || timer) return;
  timer = setTimeout(async () => {
    readAt = Date.now();
    handled = await refresh() ? count : -1;
    timer = 0;
  }, Math.max(0, readAt + listEvery - Date.now()));
}

async function refresh() {
  try {
    shown = await ask('/live/campaigns');
    render(by('recent'), shown);
    by('recent-state').textContent = shown.length ? '' : word('noneYet');
    return true;
  } catch (error) {
    by('recent-state').textContent = error.message;
    return false;
  }
}

const isMessage = (text) => /^[^/\s]+\/\d+\/\d+$/.test(text);

let asked = 0; // the newest question: an older one's answer is not shown

by('search').addEventListener('submit', async (event) => {
  event.preventDefault();
  const text = by('query').value.trim();
  if (!text) return;
  if (isMessage(text)) {
    open(text);
    return;
  }
  const mine = ++asked;
  by('search-state').textContent = word('searching');
  try {
    const found = await ask('/live/search?q=' + encodeURIComponent(text));
    if (mine !== asked) return;
    by('search-state').textContent = word('found', {
      campaign: number(found.campaign.length), client: number(found.client.length),
      messages: number(found.searched_messages), rows: number(found.searched_rows),
    });
    by('found').hidden = false;
    for (const which of ['campaign', 'client']) {
      render(by('found-' + which), found[which]);
      by('found-' + which).previousElementSibling.hidden = found[which].length === 0;
    }
    searched = found.client.length ? text : '';
  } catch (error) {
    if (mine === asked) by('search-state').textContent = error.message;
  }
});

let searched = ''; // a client that was found: who opens a message then asks for it

by('search-end').addEventListener('click', () => {
  asked++;
  searched = '';
  by('found').hidden = true;
  by('search-state').textContent = '';
  by('query').value = '';
  by('query').focus();
});

let opened = ''; // the message whose details are open
let explained = null, answered = null;

async function open(trigger) {
  opened = trigger;
  explained = answered = null;
  by('details-title').replaceChildren(made('bdi', '', trigger));
  by('details-list').replaceChildren();
  by('answer').textContent = '';
  by('client').value = searched;
  by('details-state').textContent = word('loading');
  if (!by('details').open) by('details').showModal();
  try {
    const answer = await ask('/live/explain?message=' + encodeURIComponent(trigger));
    if (opened !== trigger) return;
    explained = answer;
    by('details-state').textContent = '';
    tell();
  } catch (error) {
    if (opened === trigger) by('details-state').textContent = error.message;
  }
}

function tell() {
  const list = by('details-list');
  list.replaceChildren();
  const row = (name, text) => {
    const line = document.createElement('div');
    const value = made('dd', name, '');
    value.append(made('bdi', '', text));
    line.append(made('dt', '', word(name)), value);
    list.append(line);
  };
  const e = explained;
  row('outcome', became(e));
  row('recipients', number(e.recipients));
  row('campaign', e.adv_campaign_id ?? word('unknown'));
  row('restaurant', e.restaurant_id ?? word('unknown'));
  row('joined', e.trigger_datetime_created ? moment(new Date(e.trigger_datetime_created * 1000)) : word('unknown'));
  row('position', e.fence_lsn ?? word('unknown'));
  row('handled', moment(new Date(e.handled_at)));
  if (e.stale) row('stale', word('yes'));
  if (e.reason) row('reason', e.reason);
  if (e.error) row('error', e.error);
}

by('ask').addEventListener('submit', async (event) => {
  event.preventDefault();
  const trigger = opened;
  answered = null;
  by('answer').textContent = word('loading');
  try {
    const e = await ask(`/live/explain?message=${encodeURIComponent(trigger)}&client=${encodeURIComponent(by('client').value)}`);
    if (opened !== trigger) return;
    answered = e;
    sayAnswer();
  } catch (error) {
    if (opened === trigger) by('answer').textContent = error.message;
  }
});

function sayAnswer() {
  const e = answered;
  const cause = e.client.cause;
  const why = word(['subscribed', 'not_subscribed'].includes(cause) ? cause : 'cause_' + cause);
  const at = e.trigger_datetime_created ? word('asOf', { at: moment(new Date(e.trigger_datetime_created * 1000)) }) : '';
  const position = e.fence_lsn ? word('atPosition', { lsn: e.fence_lsn }) : '';
  by('answer').replaceChildren(made('bdi', '', e.client.id), ' ' + word(!e.client.got ? 'notGot' : isOut(e) ? 'got' : 'amongThem') + why + at + position);
}

// The event comes later than the closing: another message may be open by then.
by('details').addEventListener('close', () => { if (!by('details').open) opened = ''; });

// again shows everything anew, in another language.
export function again() {
  for (const id of ['recent', 'found-campaign', 'found-client']) by(id).replaceChildren();
  by('found').hidden = true;
  by('search-state').textContent = '';
  render(by('recent'), shown);
  handled = -1;
  if (explained) tell();
  if (answered) sayAnswer();
}
